//! The header of a GGUF file: metadata and the list of tensors.
//!
//! The keys are those of the format's specification; a model's own begin with the name of its
//! architecture, which is taken as it comes. Weights are never read.
//!
//! Invariant: no count and no length that the file states is believed before it was compared with
//! a bound, and memory grows with what was really read.

use super::shape::{Attention, ModelShape, Part, ShapeError, ShapeSource, Size, Tensors, broken};
use std::collections::BTreeMap;
use std::io::Read;

const FILE: &str = "the GGUF header";
const MAGIC: [u8; 4] = *b"GGUF";
const MOST_ENTRIES: u64 = 1 << 20;
const LONGEST_TEXT: u64 = 1 << 24;
const MOST_ITEMS: u64 = 1 << 26;
/// Of a number in the KV cache unless the engine is told otherwise: f16.
const KV_NUMBER_BITS: u64 = 16;

/// Values that matter here; others are read over.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Count(u64),
    Counts(Vec<u64>),
    Text(String),
    Other,
}

/// Reads the header and no more.
pub(crate) fn shape(file: &mut impl Read) -> Result<ModelShape, ShapeError> {
    let mut reader = Reader(file);
    if reader.array::<4>()? != MAGIC {
        return Err(broken("the file", "is no GGUF: its first bytes are others"));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(broken(FILE, format!("has version {version}; 2 and 3 are known")));
    }
    let tensors = reader.bounded(MOST_ENTRIES, "tensors")?;
    let entries = reader.bounded(MOST_ENTRIES, "metadata entries")?;
    let mut metadata = Metadata::default();
    for _ in 0..entries {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind)?;
        if value != Value::Other {
            metadata.0.insert(key, value);
        }
    }
    if metadata.count("split.count").is_ok_and(|parts| parts > 1) {
        return Err(ShapeError::Unsupported("a GGUF in several files".to_owned()));
    }
    let mut sum = Tensors::default();
    for _ in 0..tensors {
        let (name, size) = reader.tensor()?;
        sum.add(part(&name), size);
    }
    let experts = metadata.own("expert_count").ok().filter(|all| *all > 0);
    let experts = experts.map(|all| Ok((metadata.own("expert_used_count")?, all))).transpose()?;
    sum.shape(ShapeSource::Gguf, experts, metadata.attention()?, FILE)
}

#[derive(Debug, Default)]
struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    fn missing(key: &str) -> ShapeError {
        ShapeError::Missing { file: FILE, key: key.to_owned() }
    }

    fn count(&self, key: &str) -> Result<u64, ShapeError> {
        match self.0.get(key) {
            Some(Value::Count(count)) => Ok(*count),
            // One value a layer: the mean would do, but layers without attention would not.
            Some(Value::Counts(counts)) if counts.windows(2).all(|pair| pair[0] == pair[1]) => {
                counts.first().copied().ok_or_else(|| Self::missing(key))
            }
            Some(Value::Counts(_)) => {
                Err(ShapeError::Unsupported(format!("attention that differs by layer ({key})")))
            }
            _ => Err(Self::missing(key)),
        }
    }

    /// A key of the architecture's own.
    fn own(&self, key: &str) -> Result<u64, ShapeError> {
        match self.0.get("general.architecture") {
            Some(Value::Text(name)) => self.count(&format!("{name}.{key}")),
            _ => Err(Self::missing("general.architecture")),
        }
    }

    fn attention(&self) -> Result<Attention, ShapeError> {
        if self.own("attention.kv_lora_rank").is_ok() {
            return Err(ShapeError::Unsupported("latent attention (kv_lora_rank)".to_owned()));
        }
        let heads = self.own("attention.head_count")?;
        let key_length = match self.own("attention.key_length") {
            Ok(length) => length,
            Err(_) => self.own("embedding_length")?.checked_div(heads).unwrap_or(0),
        };
        Ok(Attention {
            layers: self.own("block_count")?,
            heads,
            kv_heads: self.own("attention.head_count_kv").or_else(|error| match error {
                ShapeError::Missing { .. } => Ok(heads),
                other => Err(other),
            })?,
            head_dim: key_length,
            kv_number_bits: KV_NUMBER_BITS,
            window: self.own("attention.sliding_window").ok().filter(|window| *window > 0),
        })
    }
}

fn part(name: &str) -> Part {
    match name {
        "token_embd.weight" => Part::Embedding,
        "output.weight" => Part::Head,
        name if name.contains("_exps.") => Part::Expert,
        _ => Part::Rest,
    }
}

struct Reader<'r, R>(&'r mut R);

impl<R: Read> Reader<'_, R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).map_err(|_| broken(FILE, "is cut short"))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ShapeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ShapeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bounded(&mut self, most: u64, what: &str) -> Result<u64, ShapeError> {
        match self.u64()? {
            count if count <= most => Ok(count),
            count => Err(broken(FILE, format!("would have {count} {what}"))),
        }
    }

    fn text(&mut self) -> Result<String, ShapeError> {
        let length = self.bounded(LONGEST_TEXT, "bytes in one text")?;
        let mut bytes = Vec::new();
        self.0.take(length).read_to_end(&mut bytes).map_err(|_| broken(FILE, "is cut short"))?;
        if u64::try_from(bytes.len()) != Ok(length) {
            return Err(broken(FILE, "is cut short"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), ShapeError> {
        let copied = std::io::copy(&mut self.0.take(bytes), &mut std::io::sink());
        match copied {
            Ok(copied) if copied == bytes => Ok(()),
            Ok(_) | Err(_) => Err(broken(FILE, "is cut short")),
        }
    }

    /// A value of this type: the numbers are the format's.
    fn value(&mut self, kind: u32) -> Result<Value, ShapeError> {
        Ok(match kind {
            4 => Value::Count(self.u32()?.into()),
            5 => signed(i32::from_le_bytes(self.array()?).into()),
            10 => Value::Count(self.u64()?),
            11 => signed(i64::from_le_bytes(self.array()?)),
            8 => Value::Text(self.text()?),
            9 => self.list()?,
            other => {
                let bytes = width(other)
                    .ok_or_else(|| broken(FILE, format!("has a value of unknown type {other}")))?;
                self.skip(bytes)?;
                Value::Other
            }
        })
    }

    fn list(&mut self) -> Result<Value, ShapeError> {
        let kind = self.u32()?;
        let items = self.bounded(MOST_ITEMS, "items in one list")?;
        match (kind, width(kind)) {
            (4 | 5, _) => {
                let mut counts = Vec::new();
                for _ in 0..items {
                    counts.push(u64::from(self.u32()?));
                }
                Ok(Value::Counts(counts))
            }
            (8, _) => {
                for _ in 0..items {
                    let length = self.bounded(LONGEST_TEXT, "bytes in one text")?;
                    self.skip(length)?;
                }
                Ok(Value::Other)
            }
            (_, Some(bytes)) => {
                self.skip(items * bytes)?;
                Ok(Value::Other)
            }
            (other, None) => Err(broken(FILE, format!("has a list of unknown type {other}"))),
        }
    }

    fn tensor(&mut self) -> Result<(String, Size), ShapeError> {
        let name = self.text()?;
        let sides = self.u32()?;
        if sides > 8 {
            return Err(broken(FILE, format!("has a tensor of {sides} dimensions")));
        }
        let mut numbers = 1_u64;
        for _ in 0..sides {
            let side = self.u64()?;
            numbers = numbers
                .checked_mul(side)
                .ok_or_else(|| broken(FILE, format!("has {name:?} larger than any tensor")))?;
        }
        let kind = self.u32()?;
        self.u64()?; // Where its weights begin.
        let (block, bytes) = block(kind)
            .ok_or_else(|| ShapeError::Unsupported(format!("the number format {kind} of GGUF")))?;
        let bytes = numbers
            .div_ceil(block)
            .checked_mul(bytes)
            .ok_or_else(|| broken(FILE, format!("has {name:?} larger than any tensor")))?;
        Ok((name, Size { parameters: numbers, bytes }))
    }
}

fn signed(value: i64) -> Value {
    u64::try_from(value).map_or(Value::Other, Value::Count)
}

/// Bytes of one value of a fixed size.
const fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A number format's block: how many numbers take how many bytes.
const fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),      // F32, I32
        1 | 25 | 30 => (1, 2), // F16, I16, BF16
        24 => (1, 1),          // I8
        27 | 28 => (1, 8),     // I64, F64
        2 | 20 => (32, 18),    // Q4_0, IQ4_NL
        3 => (32, 20),         // Q4_1
        6 => (32, 22),         // Q5_0
        7 => (32, 24),         // Q5_1
        8 => (32, 34),         // Q8_0
        9 => (32, 36),         // Q8_1
        10 => (256, 84),       // Q2_K
        11 | 21 => (256, 110), // Q3_K, IQ3_S
        12 => (256, 144),      // Q4_K
        13 => (256, 176),      // Q5_K
        14 => (256, 210),      // Q6_K
        15 => (256, 292),      // Q8_K
        16 | 35 => (256, 66),  // IQ2_XXS, TQ2_0
        17 => (256, 74),       // IQ2_XS
        18 => (256, 98),       // IQ3_XXS
        19 => (256, 50),       // IQ1_S
        22 => (256, 82),       // IQ2_S
        23 => (256, 136),      // IQ4_XS
        29 => (256, 56),       // IQ1_M
        34 => (256, 54),       // TQ1_0
        39 => (32, 17),        // MXFP4
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a header as the format wants it.
    #[derive(Default)]
    struct Writer {
        entries: Vec<Vec<u8>>,
        tensors: Vec<Vec<u8>>,
    }

    fn text(text: &str) -> Vec<u8> {
        [&u64::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
    }

    impl Writer {
        fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
            self.entries.push([text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat());
            self
        }

        fn count(self, key: &str, count: u32) -> Self {
            self.entry(key, 4, &count.to_le_bytes())
        }

        fn tensor(mut self, name: &str, sides: &[u64], kind: u32) -> Self {
            let mut bytes = text(name);
            bytes.extend(u32::try_from(sides.len()).unwrap().to_le_bytes());
            bytes.extend(sides.iter().flat_map(|side| side.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            self.tensors.push(bytes);
            self
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(3_u32.to_le_bytes());
            bytes.extend(u64::try_from(self.tensors.len()).unwrap().to_le_bytes());
            bytes.extend(u64::try_from(self.entries.len()).unwrap().to_le_bytes());
            bytes.extend(self.entries.concat());
            bytes.extend(self.tensors.concat());
            bytes
        }
    }

    /// Two layers of width 64, four heads, two of them for KV, ten words; f16 but for one tensor.
    fn tiny() -> Writer {
        let list =
            [8_u32.to_le_bytes().to_vec(), 2_u64.to_le_bytes().to_vec(), text("a"), text("bc")];
        Writer::default()
            .entry("general.architecture", 8, &text("tiny"))
            .entry("tokenizer.ggml.tokens", 9, &list.concat())
            .entry("general.quantized", 7, &[1])
            .count("tiny.block_count", 2)
            .count("tiny.embedding_length", 64)
            .count("tiny.attention.head_count", 4)
            .count("tiny.attention.head_count_kv", 2)
            .tensor("token_embd.weight", &[64, 10], 1)
            .tensor("output.weight", &[64, 10], 8)
            .tensor("blk.0.attn_q.weight", &[64, 64], 1)
            .tensor("blk.0.attn_norm.weight", &[64], 0)
    }

    fn read(bytes: &[u8]) -> Result<ModelShape, ShapeError> {
        shape(&mut &bytes[..])
    }

    #[test]
    fn a_header_gives_counts_bytes_and_attention() {
        let shape = read(&tiny().bytes()).unwrap();
        assert_eq!(shape.parameters, 640 + 640 + 4096 + 64);
        assert_eq!(shape.weight_bytes, 1280 + 680 + 8192 + 256);
        assert_eq!((shape.lookup_parameters, shape.head_parameters), (640, 640));
        assert_eq!(shape.attention.head_dim, 16);
        assert_eq!(shape.attention.kv_numbers_per_token(), 2 * 2 * 2 * 16);
        assert_eq!(shape.expert_share, 1.0);
    }

    #[test]
    fn experts_that_sit_out_are_not_active() {
        let bytes = tiny()
            .count("tiny.expert_count", 8)
            .count("tiny.expert_used_count", 2)
            .tensor("blk.1.ffn_up_exps.weight", &[64, 32, 8], 12)
            .bytes();
        let shape = read(&bytes).unwrap();
        let experts = 64 * 32 * 8;
        assert_eq!(shape.parameters - shape.active_parameters, experts * 6 / 8);
        assert_eq!(shape.expert_bytes, experts / 256 * 144);
        assert_eq!(shape.expert_share, 0.25);
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let many = [4_u32.to_le_bytes().to_vec(), u64::MAX.to_le_bytes().to_vec()].concat();
        let differing: Vec<u8> = [4_u32.to_le_bytes().to_vec(), 2_u64.to_le_bytes().to_vec()]
            .into_iter()
            .chain([1_u32.to_le_bytes().to_vec(), 2_u32.to_le_bytes().to_vec()])
            .flatten()
            .collect();
        for (bytes, why) in [
            (b"GGUX....".to_vec(), "is no GGUF"),
            (b"GGUF\x01\0\0\0".to_vec(), "version 1"),
            (tiny().bytes()[..100].to_vec(), "cut short"),
            (Writer::default().bytes(), "general.architecture"),
            (tiny().entry("x", 9, &many).bytes(), "items in one list"),
            (tiny().entry("x", 77, &[]).bytes(), "unknown type 77"),
            (tiny().tensor("odd", &[4], 4).bytes(), "number format 4"),
            (tiny().tensor("odd", &[u64::MAX, 3], 1).bytes(), "larger than any"),
            (tiny().count("split.count", 3).bytes(), "several files"),
            (tiny().count("tiny.attention.kv_lora_rank", 512).bytes(), "latent attention"),
            (tiny().entry("tiny.attention.head_count", 9, &differing).bytes(), "by layer"),
        ] {
            let said = read(&bytes).unwrap_err().to_string();
            assert!(said.contains(why), "{why} in {said}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read(&[b"GGUF\x03\0\0\0", &bytes[..]].concat()).ok();
            read(&bytes).ok();
        }

        #[test]
        fn no_damage_breaks_it(at in 0..500_usize, byte in any::<u8>(), cut in 0..500_usize) {
            let mut bytes = tiny().bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            read(&bytes).ok();
            bytes.truncate(cut);
            read(&bytes).ok();
        }
    }
}
