//! What an engine is: data read from a TOML file, never code. Pure.
//!
//! A file becomes an `EngineDef` (`parse`, found by `library`); a sweep's values for it become a
//! command line (`params`, `launch`) and request bodies (`request`); its log and its end become a
//! verdict (`rules`).
//!
//! No engine's name appears in this crate outside `sim/`.

pub(crate) mod common;
pub(crate) mod containment;
pub(crate) mod def;
pub(crate) mod effective;
pub(crate) mod exposition;
#[cfg(test)]
mod fixture_tests;
mod gpu;
pub(crate) mod help;
mod inspection;
pub(crate) mod launch;
pub(crate) mod library;
mod native;
pub(crate) mod params;
pub(crate) mod parse;
pub(crate) mod request;
pub(crate) mod rules;
mod sections;
mod shape;
pub(crate) mod template;
