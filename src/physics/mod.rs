//! What hardware and model allow: no measured number may lie beyond it.
//!
//! From a GPU's peaks (`gpu`) and a model's shape (`shape`, read from a `config.json`, safetensors
//! headers or a GGUF header) follow the work of a token, the bytes of a decode step and with them
//! MFU, MBU, rooflines and floors (`roofline`). Pure: whoever reads the model's files hands their
//! bytes in.
//!
//! Invariant: every limit errs on the side of the engine. What is not known for sure (which
//! experts a batch touches, whether a cache is shared) is taken as if it cost nothing, so that a
//! number above a limit is impossible and not only unlikely.

pub(crate) mod config_json;
pub(crate) mod gguf;
pub(crate) mod gpu;
pub(crate) mod roofline;
pub(crate) mod safetensors;
pub(crate) mod shape;
