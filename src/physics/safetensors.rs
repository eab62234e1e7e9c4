//! The headers of safetensors files: which tensors there are and how large.
//!
//! A file begins with the header's length, eight bytes little-endian, and the header, which is
//! JSON. Only that is read, never a weight. Pure: bytes come from whoever reads.
//!
//! Invariant: no length that a file states is believed before it was compared with a bound.

use super::shape::{Part, ShapeError, Size, Tensors, broken};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;

const FILE: &str = "a safetensors header";
/// The format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

#[derive(Debug, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Adds one file's tensors to `sum`.
pub(crate) fn add(file: &mut impl Read, sum: &mut Tensors) -> Result<(), ShapeError> {
    let header = header(file)?;
    let mut tensors: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|error| broken(FILE, format!("is no JSON: {error}")))?;
    tensors.remove("__metadata__");
    for (name, value) in tensors {
        let tensor: Tensor = serde_json::from_value(value)
            .map_err(|error| broken(FILE, format!("describes {name:?} oddly: {error}")))?;
        let (from, to) = tensor.data_offsets;
        let bytes = to
            .checked_sub(from)
            .ok_or_else(|| broken(FILE, format!("has {name:?} end before it begins")))?;
        let numbers =
            tensor.shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side));
        let numbers =
            numbers.ok_or_else(|| broken(FILE, format!("has {name:?} larger than any tensor")))?;
        if let Some(bits) = bits(&tensor.dtype)
            && numbers.checked_mul(bits).is_none_or(|all| all.div_ceil(8) != bytes)
        {
            let why = format!("has {bytes} bytes for {numbers} numbers of {}", tensor.dtype);
            return Err(broken(FILE, format!("{why} in {name:?}")));
        }
        sum.add(part(&name, tensor.shape.len()), Size { parameters: numbers, bytes });
    }
    Ok(())
}

fn header(file: &mut impl Read) -> Result<Vec<u8>, ShapeError> {
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|error| broken(FILE, format!("cannot be read: {error}")))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(broken(FILE, format!("would be {length} bytes long: no safetensors file")));
    }
    // Grows with what comes, not with what was promised.
    let mut header = Vec::new();
    file.take(length)
        .read_to_end(&mut header)
        .map_err(|error| broken(FILE, format!("cannot be read: {error}")))?;
    if u64::try_from(header.len()) != Ok(length) {
        return Err(broken(FILE, "is cut short"));
    }
    Ok(header)
}

/// Bits of one number; `None` for formats that may still come.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "I8" | "U8" | "BOOL" => 8,
        _ => return None,
    })
}

/// By the names that the common model code gives its tensors.
fn part(name: &str, sides: usize) -> Part {
    let is_matrix = sides == 2;
    let ends = |tail: &str| name.ends_with(tail);
    if is_matrix
        && ["embed_tokens.weight", "tok_embeddings.weight", "word_embeddings.weight", "wte.weight"]
            .iter()
            .any(|tail| ends(tail))
    {
        Part::Embedding
    } else if is_matrix
        && (ends("lm_head.weight") || ends("embed_out.weight") || name == "output.weight")
    {
        Part::Head
    } else if name.contains(".experts.") {
        Part::Expert
    } else {
        Part::Rest
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// A file without its weights.
    pub(crate) fn file(header: &serde_json::Value) -> Vec<u8> {
        let text = header.to_string();
        let mut bytes = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Tensors, ShapeError> {
        let mut sum = Tensors::default();
        add(&mut &bytes[..], &mut sum).map(|()| sum)
    }

    #[test]
    fn tensors_are_summed_by_their_part() {
        let header = json!({
            "__metadata__": { "format": "pt" },
            "model.embed_tokens.weight": { "dtype": "BF16", "shape": [10, 4], "data_offsets": [0, 80] },
            "model.layers.0.mlp.experts.7.up_proj.weight":
                { "dtype": "BF16", "shape": [4, 6], "data_offsets": [80, 128] },
            "model.norm.weight": { "dtype": "F32", "shape": [4], "data_offsets": [128, 144] },
            "lm_head.weight": { "dtype": "BF16", "shape": [10, 4], "data_offsets": [144, 224] },
        });
        let sum = read(&file(&header)).unwrap();
        assert_eq!((sum.parameters, sum.bytes), (40 + 24 + 4 + 40, 224));
        assert_eq!(sum.embedding, Size { parameters: 40, bytes: 80 });
        assert_eq!(sum.head, Size { parameters: 40, bytes: 80 });
        assert_eq!(sum.experts, Size { parameters: 24, bytes: 48 });
    }

    #[test]
    fn lies_are_found() {
        let one = |tensor| file(&json!({ "w": tensor }));
        for (bytes, why) in [
            (vec![1, 2, 3], "cannot be read"),
            (u64::MAX.to_le_bytes().to_vec(), "no safetensors file"),
            (1000_u64.to_le_bytes().to_vec(), "cut short"),
            ([3_u64.to_le_bytes().as_slice(), b"{]}"].concat(), "no JSON"),
            (
                one(json!({ "dtype": "F16", "shape": [2], "data_offsets": [4, 0] })),
                "before it begins",
            ),
            (one(json!({ "dtype": "F16", "shape": [2], "data_offsets": [0, 5] })), "5 bytes for 2"),
            (
                one(json!({ "dtype": "F16", "shape": [u64::MAX, 9], "data_offsets": [0, 5] })),
                "larger than any",
            ),
            (one(json!({ "dtype": "F16" })), "oddly"),
        ] {
            let said = read(&bytes).unwrap_err().to_string();
            assert!(said.contains(why), "{why} in {said}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes).ok();
        }

        #[test]
        fn no_header_breaks_it(
            shape in prop::collection::vec(any::<u64>(), 0..4),
            offsets in any::<(u64, u64)>(),
        ) {
            let header = json!({ "lm_head.weight":
                { "dtype": "F16", "shape": shape, "data_offsets": [offsets.0, offsets.1] } });
            read(&file(&header)).ok();
        }
    }
}
