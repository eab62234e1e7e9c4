//! A model's dimensions from its `config.json`, in the keys that the common model code writes.
//!
//! Decoder models with a gated MLP (three matrices) are computed to the last parameter; for
//! others the counts must come from tensor headers, and the dimensions for attention alone are
//! taken from here. Pure.

use super::shape::{Attention, ModelShape, ShapeError, ShapeSource, Tensors, broken};
use super::shape::{share, whole};
use crate::units::count_f64;
use serde_json::{Map, Value};

const FILE: &str = "config.json";

/// What the file says, by its own names.
#[derive(Debug)]
pub(crate) struct Config {
    keys: Map<String, Value>,
}

impl Config {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ShapeError> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| broken(FILE, format!("is no JSON: {error}")))?;
        let Value::Object(mut outer) = value else {
            return Err(broken(FILE, "is no JSON object"));
        };
        // A model that also sees or hears keeps its text part in a table of its own.
        let keys = match outer.remove("text_config") {
            Some(Value::Object(inner)) => {
                for (key, value) in inner {
                    outer.insert(key, value);
                }
                outer
            }
            _ => outer,
        };
        Ok(Self { keys })
    }

    fn optional(&self, key: &str) -> Result<Option<u64>, ShapeError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                // The bound keeps every product of a few of them within 64 bits.
                Some(number) if number <= 1_000_000_000 => Ok(Some(number)),
                _ => Err(broken(FILE, format!("has {value} as `{key}`"))),
            },
        }
    }

    fn required(&self, key: &str) -> Result<u64, ShapeError> {
        let missing = || ShapeError::Missing { file: FILE, key: key.to_owned() };
        self.optional(key)?.ok_or_else(missing)
    }

    fn first_of(&self, keys: &[&str]) -> Result<Option<u64>, ShapeError> {
        for key in keys {
            if let Some(found) = self.optional(key)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn is(&self, key: &str) -> Option<bool> {
        self.keys.get(key).and_then(Value::as_bool)
    }

    fn text(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.keys.get(*key)?.as_str())
    }

    /// The tensors' headers know sizes; dimensions still come from here.
    pub(crate) fn shape_of_tensors(&self, tensors: &Tensors) -> Result<ModelShape, ShapeError> {
        let attention = self.attention()?;
        if self.quantization().is_some() {
            // Packed numbers are not parameters: the counts are computed, the bytes are real.
            let mut shape = self.computed(16.0)?;
            shape.source = ShapeSource::Safetensors;
            shape.weight_bytes = tensors.bytes;
            shape.expert_bytes = tensors.experts.bytes;
            shape.lookup_bytes =
                if shape.lookup_parameters > 0 { tensors.embedding.bytes } else { 0 };
            return shape.checked(FILE);
        }
        let experts = self.experts()?.map(|experts| (experts.taken, experts.all));
        tensors.shape(ShapeSource::Safetensors, experts, attention, "the safetensors headers")
    }

    /// All from the dimensions.
    pub(crate) fn shape(&self) -> Result<ModelShape, ShapeError> {
        self.computed(self.weight_bits()?)
    }

    /// With quantised weights of so many bits, and the rest in the model's number format.
    fn computed(&self, bits: f64) -> Result<ModelShape, ShapeError> {
        let attention = self.attention()?;
        let activation = self.text(&["hidden_act", "hidden_activation"]).unwrap_or("none");
        if !["silu", "swish", "gelu_pytorch_tanh"].contains(&activation) {
            let what =
                format!("a model of this kind without its tensors (`hidden_act` {activation:?})");
            return Err(ShapeError::Unsupported(what));
        }
        let [hidden, vocabulary] = [self.required("hidden_size")?, self.required("vocab_size")?];
        let embedding = hidden * vocabulary;
        let tied = self.is("tie_word_embeddings").unwrap_or(false);
        let layers = attention.layers;
        let mlps = self.mlps(hidden, layers)?;
        let layer = self.attention_parameters(hidden, &attention)?.saturating_add(2 * hidden);
        let rest = layers.saturating_mul(layer).saturating_add(hidden);
        let body = mlps.shared.saturating_add(mlps.routed).saturating_add(rest);
        let bytes = |parameters: u64, bits: f64| whole(count_f64(parameters) * bits / 8.0);
        let plain_bits = self.number_bits()?;
        let tables = if tied { embedding } else { embedding.saturating_mul(2) };
        let expert_share = share(mlps.experts, FILE)?;
        let idle = count_f64(mlps.routed) * (1.0 - expert_share);
        let parameters = body.saturating_add(tables);
        ModelShape {
            source: ShapeSource::Config,
            parameters,
            active_parameters: parameters.saturating_sub(whole(idle)),
            lookup_parameters: if tied { 0 } else { embedding },
            head_parameters: embedding,
            // Embeddings and the output layer are rarely quantised.
            weight_bytes: bytes(body, bits).saturating_add(bytes(tables, plain_bits)),
            lookup_bytes: if tied { 0 } else { bytes(embedding, plain_bits) },
            expert_bytes: bytes(mlps.routed, bits),
            expert_share,
            attention,
        }
        .checked(FILE)
    }

    fn attention(&self) -> Result<Attention, ShapeError> {
        if self.optional("kv_lora_rank")?.is_some() {
            return Err(ShapeError::Unsupported("latent attention (kv_lora_rank)".to_owned()));
        }
        if let Some(Value::Array(kinds)) = self.keys.get("layer_types") {
            let odd = |kind: &&Value| {
                !matches!(kind.as_str(), Some("full_attention" | "sliding_attention"))
            };
            if let Some(kind) = kinds.iter().find(odd) {
                return Err(ShapeError::Unsupported(format!("a layer of type {kind}")));
            }
        }
        let heads = self.required("num_attention_heads")?;
        let head_dim = match self.optional("head_dim")? {
            Some(head_dim) => head_dim,
            None => self.required("hidden_size")?.checked_div(heads).unwrap_or(0),
        };
        let window = match self.is("use_sliding_window") {
            Some(false) => None,
            Some(true) | None => self.optional("sliding_window")?,
        };
        let attention = Attention {
            layers: self.required("num_hidden_layers")?,
            heads,
            kv_heads: self.optional("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            kv_number_bits: whole(self.number_bits()?),
            window,
        };
        attention.check(FILE)?;
        Ok(attention)
    }

    /// Projections of one layer, their biases and norms.
    fn attention_parameters(&self, hidden: u64, of: &Attention) -> Result<u64, ShapeError> {
        let (queries, keys) = (of.heads * of.head_dim, of.kv_heads * of.head_dim);
        let model = self.text(&["model_type"]).unwrap_or_default();
        let only_qkv = model.starts_with("qwen2");
        let biased = self.is("attention_bias").unwrap_or(only_qkv);
        let mut biases = if biased { queries + 2 * keys } else { 0 };
        if biased && !only_qkv {
            biases += hidden;
        }
        let head_norms = if model.starts_with("qwen3") { 2 * of.head_dim } else { 0 };
        let matrices =
            queries.checked_mul(2).and_then(|q| q.checked_add(2 * keys)?.checked_mul(hidden));
        let matrices = matrices.ok_or_else(|| broken(FILE, "has impossibly wide attention"))?;
        Ok(matrices.saturating_add(biases + head_norms))
    }

    fn experts(&self) -> Result<Option<Experts>, ShapeError> {
        let all = self.first_of(&["num_local_experts", "num_experts", "n_routed_experts"])?;
        let Some(all) = all.filter(|all| *all > 0) else { return Ok(None) };
        let taken = self.first_of(&["num_experts_per_tok", "num_experts_per_token"])?;
        let missing = || ShapeError::Missing { file: FILE, key: "num_experts_per_tok".to_owned() };
        Ok(Some(Experts { taken: taken.ok_or_else(missing)?, all }))
    }

    fn mlps(&self, hidden: u64, layers: u64) -> Result<Mlps, ShapeError> {
        let too_large = || broken(FILE, "has MLPs larger than any model's");
        let gated = |width: u64| hidden.checked_mul(width).and_then(|one| one.checked_mul(3));
        let Some(Experts { taken, all }) = self.experts()? else {
            let one = gated(self.required("intermediate_size")?).ok_or_else(too_large)?;
            let shared = one.checked_mul(layers).ok_or_else(too_large)?;
            return Ok(Mlps { shared, routed: 0, experts: None });
        };
        let width = match self.optional("moe_intermediate_size")? {
            Some(width) => width,
            None => self.required("intermediate_size")?,
        };
        let sparse = self.sparse_layers(layers)?;
        let dense = layers - sparse;
        let wide = if dense > 0 { self.required("intermediate_size")? } else { 0 };
        // A shared expert works on every token; in one family a gate of its own comes with it.
        let (beside, gate) = match self.optional("shared_expert_intermediate_size")? {
            Some(width) if width > 0 => (width, hidden),
            Some(_) | None => (width * self.optional("n_shared_experts")?.unwrap_or(0), 0),
        };
        let product =
            |a: Option<u64>, b: u64| a.and_then(|a| a.checked_mul(b)).ok_or_else(too_large);
        let router = hidden.checked_mul(all);
        let shared = product(gated(wide), dense)?
            .saturating_add(product(gated(beside), sparse)?)
            .saturating_add(product(router, sparse)?)
            .saturating_add(gate * sparse);
        let routed = product(gated(width).and_then(|one| one.checked_mul(all)), sparse)?;
        Ok(Mlps { shared, routed, experts: Some((taken, all)) })
    }

    /// Layers with experts.
    fn sparse_layers(&self, layers: u64) -> Result<u64, ShapeError> {
        let first = self.optional("first_k_dense_replace")?.unwrap_or(0).min(layers);
        let step = self.optional("decoder_sparse_step")?.unwrap_or(1).max(1);
        let plain = match self.keys.get("mlp_only_layers") {
            Some(Value::Array(plain)) => plain.clone(),
            _ => Vec::new(),
        };
        let is_sparse = |layer: &u64| {
            (*layer + 1).is_multiple_of(step) && !plain.iter().any(|at| at.as_u64() == Some(*layer))
        };
        Ok(u64::try_from((first..layers).filter(is_sparse).count()).unwrap_or(0))
    }

    fn quantization(&self) -> Option<&Map<String, Value>> {
        let keys = ["quantization_config", "compression_config"];
        keys.iter().find_map(|key| self.keys.get(*key)?.as_object())
    }

    /// Of the numbers that are not quantised.
    fn number_bits(&self) -> Result<f64, ShapeError> {
        match self.text(&["torch_dtype", "dtype"]) {
            Some("float32") => Ok(32.0),
            Some("float16" | "bfloat16") | None => Ok(16.0),
            Some(other) => Err(broken(FILE, format!("has the number format {other:?}"))),
        }
    }

    fn weight_bits(&self) -> Result<f64, ShapeError> {
        let Some(quantization) = self.quantization() else { return self.number_bits() };
        let bits = ["bits", "w_bit"].iter().find_map(|key| quantization.get(*key)?.as_f64());
        let method = quantization.get("quant_method").and_then(Value::as_str);
        match (bits, method) {
            (Some(bits), _) if (1.0..=16.0).contains(&bits) => Ok(bits),
            (None, Some("fp8" | "fbgemm_fp8")) => Ok(8.0),
            _ => Err(ShapeError::Unsupported(format!(
                "weights quantised by {:?} without their tensors",
                method.unwrap_or("an unnamed method")
            ))),
        }
    }
}

/// Sums over all layers.
#[derive(Debug)]
struct Mlps {
    /// Works on every token; the routers, too.
    shared: u64,
    routed: u64,
    experts: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Experts {
    taken: u64,
    all: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physics::safetensors;
    use proptest::prelude::*;
    use serde_json::json;

    fn shape(text: &str) -> Result<ModelShape, ShapeError> {
        Config::parse(text.as_bytes())?.shape()
    }

    /// Parameter counts as their publishers give them: to the last one.
    #[test]
    fn published_models_are_counted_exactly() {
        for (text, parameters, active, kv_bytes) in [
            (include_str!("models/8b.json"), 8_030_261_248, 8_030_261_248, 131_072),
            (include_str!("models/70b.json"), 70_553_706_496, 70_553_706_496, 327_680),
            (include_str!("models/7b-windowed.json"), 7_241_732_096, 7_241_732_096, 131_072),
            (include_str!("models/14b-biased.json"), 14_770_033_664, 14_770_033_664, 196_608),
            (include_str!("models/8x7b.json"), 46_702_792_704, 12_879_925_248, 131_072),
            (include_str!("models/30b-a3b.json"), 30_532_122_624, 3_353_032_704, 98_304),
            (include_str!("models/14b-a2.7b.json"), 14_315_784_192, 2_689_173_504, 196_608),
            (include_str!("models/0.5b-tied.json"), 494_032_768, 494_032_768, 12_288),
        ] {
            let shape = shape(text).unwrap();
            assert_eq!(shape.parameters, parameters);
            assert_eq!(shape.active_parameters, active, "{parameters}");
            assert_eq!(2 * shape.attention.kv_numbers_per_token(), kv_bytes, "{parameters}");
            assert_eq!(shape.weight_bytes, 2 * parameters);
        }
    }

    #[test]
    fn a_table_of_its_own_is_looked_up_and_a_tied_one_multiplied() {
        let own = shape(include_str!("models/8b.json")).unwrap();
        assert_eq!(own.lookup_parameters, 128_256 * 4096);
        assert_eq!(own.matmul_parameters(), 8_030_261_248 - 128_256 * 4096);
        let tied = shape(include_str!("models/0.5b-tied.json")).unwrap();
        assert_eq!((tied.lookup_parameters, tied.lookup_bytes), (0, 0));
        assert_eq!(tied.head_parameters, 151_936 * 896);
    }

    #[test]
    fn windows_and_quantised_weights_are_seen() {
        let windowed = shape(include_str!("models/7b-windowed.json")).unwrap();
        assert_eq!(windowed.attention.window, Some(4096));
        let biased = shape(include_str!("models/14b-biased.json")).unwrap();
        assert_eq!(biased.attention.window, None, "it says that it does not use its window");
        let quantised = include_str!("models/8b.json")
            .replace('{', r#"{ "quantization_config": { "bits": 4, "quant_method": "awq" },"#);
        let quantised = quantised.replacen(r#""rope_scaling""#, r#""x""#, 1);
        let quantised = shape(&quantised).unwrap();
        let tables = 2 * 128_256 * 4096;
        assert_eq!(quantised.weight_bytes, (8_030_261_248 - tables) / 2 + tables * 2);
        assert!((4.0..6.0).contains(&quantised.weight_bits()));
    }

    /// Sizes come from the headers, dimensions from the configuration.
    #[test]
    fn tensors_are_believed_before_the_configuration() {
        let config = Config::parse(include_bytes!("models/8b.json")).unwrap();
        let header = json!({
            "model.embed_tokens.weight": { "dtype": "BF16", "shape": [100, 8], "data_offsets": [0, 1600] },
            "lm_head.weight": { "dtype": "BF16", "shape": [100, 8], "data_offsets": [1600, 3200] },
            "model.layers.0.w": { "dtype": "F32", "shape": [10], "data_offsets": [3200, 3240] },
        });
        let mut tensors = Tensors::default();
        safetensors::add(&mut &safetensors::tests::file(&header)[..], &mut tensors).unwrap();
        let shape = config.shape_of_tensors(&tensors).unwrap();
        assert_eq!((shape.parameters, shape.weight_bytes), (1610, 3240));
        assert_eq!(2 * shape.attention.kv_numbers_per_token(), 131_072);
        assert_eq!(shape.source, ShapeSource::Safetensors);
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let with =
            |extra: &str| include_str!("models/8b.json").replacen('{', &format!("{{{extra},"), 1);
        let without = |key: &str| include_str!("models/8b.json").replace(key, "x");
        for (text, why) in [
            ("nonsense".to_owned(), "no JSON"),
            ("[]".to_owned(), "no JSON object"),
            ("{}".to_owned(), "no `num_attention_heads`"),
            (without("num_hidden_layers"), "no `num_hidden_layers`"),
            (without("hidden_act"), "`hidden_act` \"none\""),
            (with(r#""kv_lora_rank": 512"#), "latent attention"),
            (with(r#""layer_types": ["linear_attention"]"#), "linear_attention"),
            (with(r#""num_experts": 8"#), "no `num_experts_per_tok`"),
            (with(r#""num_experts": 8, "num_experts_per_tok": 9"#), "takes 9 of 8 experts"),
            (with(r#""quantization_config": { "quant_method": "odd" }"#), "\"odd\""),
            (with(r#""head_dim": -1"#), "-1 as `head_dim`"),
            (with(r#""dtype": "int3""#).replace("torch_dtype", "x"), "int3"),
        ] {
            let said = shape(&text).unwrap_err().to_string();
            assert!(said.contains(why), "{why} in {said}");
        }
    }

    proptest! {
        /// Any numbers anywhere: a shape or a reason, never a panic or an overflow.
        #[test]
        fn no_numbers_break_it(numbers in prop::collection::vec(any::<u64>(), 12), small in any::<bool>()) {
            const KEYS: [&str; 12] = [
                "hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "head_dim", "intermediate_size", "num_experts",
                "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts",
                "first_k_dense_replace",
            ];
            let mut config = json!({ "hidden_act": "silu" });
            for (key, number) in KEYS.into_iter().zip(numbers) {
                config[key] = json!(if small { number % 100_000 } else { number % 1_000_000_001 });
            }
            if let Ok(shape) = shape(&config.to_string()) {
                prop_assert!(shape.active_parameters <= shape.parameters);
                prop_assert!(shape.matmul_parameters() > 0);
            }
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,80}") {
            shape(&text).ok();
        }
    }
}
