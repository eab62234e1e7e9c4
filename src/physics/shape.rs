//! A model's shape: as much of it as decides work and bytes.
//!
//! Read from tensor headers where they are there (exact), from the configuration otherwise
//! (computed). Pure.
//!
//! Invariant: every figure is finite and positive, and active parts never exceed totals; a file that
//! says otherwise gives a `ShapeError`, never a shape.

use serde::{Deserialize, Serialize};

/// More than any model has: what lies above is a broken file.
const MOST_PARAMETERS: u64 = 100_000_000_000_000;
const MOST_LAYERS: u64 = 10_000;
const MOST_WIDTH: u64 = 10_000_000;

/// Each message completes "the model's shape is unknown: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("{file} {why}")]
    Broken { file: &'static str, why: String },
    #[error("{file} has no `{key}`")]
    Missing { file: &'static str, key: String },
    #[error("{0} is not computed here")]
    Unsupported(String),
    #[error("{0}")]
    NoFile(String),
}

/// Where the counts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShapeSource {
    /// Computed from the configuration's dimensions.
    Config,
    /// Dimensions from the configuration, counts and bytes from the tensors' headers.
    Safetensors,
    Gguf,
}

impl ShapeSource {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Config => "computed from config.json",
            Self::Safetensors => "counted in the safetensors headers",
            Self::Gguf => "counted in the GGUF header",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelShape {
    pub(crate) source: ShapeSource,
    /// All of the model's parameters.
    pub(crate) parameters: u64,
    /// Those that work on one token: all, but for the experts that sit out.
    pub(crate) active_parameters: u64,
    /// An embedding table of its own: a token reads one row of it and multiplies nothing. 0 where
    /// the output layer uses the same table.
    pub(crate) lookup_parameters: u64,
    /// The output layer, which works on sampled positions only.
    pub(crate) head_parameters: u64,
    /// All of the weights.
    pub(crate) weight_bytes: u64,
    /// Those of `lookup_parameters`.
    pub(crate) lookup_bytes: u64,
    /// Those of all routed experts.
    pub(crate) expert_bytes: u64,
    /// Share of the routed experts that one token takes; 1 for a dense model.
    pub(crate) expert_share: f64,
    pub(crate) attention: Attention,
}

/// Grouped-query attention; with as many KV heads as heads it is the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attention {
    pub(crate) layers: u64,
    pub(crate) heads: u64,
    pub(crate) kv_heads: u64,
    pub(crate) head_dim: u64,
    /// Of one number in the KV cache, as the model's own number format has it.
    pub(crate) kv_number_bits: u64,
    /// Positions beyond this many back are not looked at.
    pub(crate) window: Option<u64>,
}

impl Attention {
    /// Keys and values of all layers.
    pub(crate) const fn kv_numbers_per_token(&self) -> u64 {
        2 * self.layers * self.kv_heads * self.head_dim
    }

    pub(super) fn check(&self, file: &'static str) -> Result<(), ShapeError> {
        let positive = [
            ("layers", self.layers, MOST_LAYERS),
            ("attention heads", self.heads, MOST_WIDTH),
            ("KV heads", self.kv_heads, self.heads),
            ("head width", self.head_dim, MOST_WIDTH),
            ("bits a KV number", self.kv_number_bits, 64),
        ];
        for (what, value, most) in positive {
            if value == 0 || value > most {
                return Err(broken(file, format!("has {value} {what}")));
            }
        }
        // So that no product of these overflows.
        if self.heads.saturating_mul(self.head_dim) > MOST_WIDTH {
            return Err(broken(file, "has attention wider than any model's".to_owned()));
        }
        match self.window {
            Some(0) => Err(broken(file, "has an attention window of 0".to_owned())),
            Some(_) | None => Ok(()),
        }
    }
}

impl ModelShape {
    /// The one way a shape comes to be.
    pub(crate) fn checked(self, file: &'static str) -> Result<Self, ShapeError> {
        self.attention.check(file)?;
        let says = |why: &str| Err(broken(file, why.to_owned()));
        if self.parameters == 0 || self.parameters > MOST_PARAMETERS {
            return says("counts no possible number of parameters");
        }
        if self.active_parameters > self.parameters
            || self.lookup_parameters.saturating_add(self.head_parameters) >= self.active_parameters
        {
            return says("has parts that are larger than the whole");
        }
        if self.weight_bytes == 0
            || self.weight_bytes > MOST_PARAMETERS.saturating_mul(8)
            || self.lookup_bytes.saturating_add(self.expert_bytes) >= self.weight_bytes
        {
            return says("counts no possible number of bytes");
        }
        if !(self.expert_share > 0.0 && self.expert_share <= 1.0) {
            return says("has more experts at work than it has");
        }
        Ok(self)
    }

    /// Parameters that a decoded token multiplies: N in 2N.
    pub(crate) const fn matmul_parameters(&self) -> u64 {
        self.active_parameters - self.lookup_parameters
    }

    /// Bits a weight takes on average.
    pub(crate) fn weight_bits(&self) -> f64 {
        crate::units::count_f64(self.weight_bytes) * 8.0 / crate::units::count_f64(self.parameters)
    }
}

pub(super) fn broken(file: &'static str, why: impl Into<String>) -> ShapeError {
    ShapeError::Broken { file, why: why.into() }
}

/// Sizes of named tensors, summed up as a shape needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tensors {
    pub(super) parameters: u64,
    pub(super) bytes: u64,
    pub(super) embedding: Size,
    /// A matrix of its own for the output layer.
    pub(super) head: Size,
    pub(super) experts: Size,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(super) parameters: u64,
    pub(super) bytes: u64,
}

/// What part a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Embedding,
    Head,
    Expert,
    Rest,
}

impl Tensors {
    pub(super) fn add(&mut self, part: Part, size: Size) {
        self.parameters = self.parameters.saturating_add(size.parameters);
        self.bytes = self.bytes.saturating_add(size.bytes);
        let own = match part {
            Part::Embedding => &mut self.embedding,
            Part::Head => &mut self.head,
            Part::Expert => &mut self.experts,
            Part::Rest => return,
        };
        own.parameters = own.parameters.saturating_add(size.parameters);
        own.bytes = own.bytes.saturating_add(size.bytes);
    }

    /// `experts`: how many a token takes, of how many.
    pub(super) fn shape(
        &self,
        source: ShapeSource,
        experts: Option<(u64, u64)>,
        attention: Attention,
        file: &'static str,
    ) -> Result<ModelShape, ShapeError> {
        if self.embedding.parameters == 0 {
            return Err(broken(file, "names no embedding table that is known"));
        }
        let tied = self.head.parameters == 0;
        let lookup = if tied { Size::default() } else { self.embedding };
        let expert_share = share(experts, file)?;
        let idle = crate::units::count_f64(self.experts.parameters) * (1.0 - expert_share);
        ModelShape {
            source,
            parameters: self.parameters,
            active_parameters: self.parameters.saturating_sub(whole(idle)),
            lookup_parameters: lookup.parameters,
            head_parameters: if tied { self.embedding.parameters } else { self.head.parameters },
            weight_bytes: self.bytes,
            lookup_bytes: lookup.bytes,
            expert_bytes: self.experts.bytes,
            expert_share,
            attention,
        }
        .checked(file)
    }
}

/// `(taken, all)` as a share.
pub(super) fn share(experts: Option<(u64, u64)>, file: &'static str) -> Result<f64, ShapeError> {
    match experts {
        None => Ok(1.0),
        Some((taken, all)) if taken > 0 && taken <= all && all <= MOST_WIDTH => {
            Ok(crate::units::count_f64(taken) / crate::units::count_f64(all))
        }
        Some((taken, all)) => {
            Err(broken(file, format!("takes {taken} of {all} experts for a token")))
        }
    }
}

/// A float that counts, as a count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(crate) fn whole(value: f64) -> u64 {
    value.round().clamp(0.0, 9e18) as u64
}
