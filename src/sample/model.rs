//! The model's files, as far as its shape stands in them: headers and configuration, never a weight.
//!
//! A GGUF file, a folder with `config.json` and perhaps safetensors files, or a `config.json` alone.

use crate::physics::config_json::Config;
use crate::physics::gguf;
use crate::physics::safetensors;
use crate::physics::shape::{ModelShape, ShapeError, Tensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// No configuration and no index is longer.
const LONGEST_JSON: u64 = 64 << 20;
/// The end of a GGUF file's name. Others are looked at for what they are.
const GGUF: &str = "gguf";

/// The shape of the model at `path`.
pub(crate) fn shape(path: &Path) -> Result<ModelShape, ShapeError> {
    if !path.is_dir() {
        return match path.extension().is_some_and(|extension| extension == GGUF) {
            true => gguf::shape(&mut BufReader::new(open(path)?)),
            false => Config::parse(&read(path)?)?.shape(),
        };
    }
    let config = path.join("config.json");
    if !config.is_file() {
        let why = format!("{} has no config.json", path.display());
        return Err(ShapeError::NoFile(why));
    }
    let config = Config::parse(&read(&config)?)?;
    let files = tensor_files(path)?;
    if files.is_empty() {
        return config.shape();
    }
    let mut tensors = Tensors::default();
    for file in files {
        safetensors::add(&mut BufReader::new(open(&file)?), &mut tensors)?;
    }
    config.shape_of_tensors(&tensors)
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that the index names; without one, those that lie there.
fn tensor_files(folder: &Path) -> Result<BTreeSet<PathBuf>, ShapeError> {
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        let index: Index = serde_json::from_slice(&read(&index)?).map_err(|error| {
            ShapeError::NoFile(format!("{} is no index: {error}", index.display()))
        })?;
        // Names, not paths: what lies elsewhere is none of this model's.
        let names = index.weight_map.into_values().filter(|name| !name.contains('/'));
        return Ok(names.map(|name| folder.join(name)).collect());
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_tensors =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    let all: BTreeSet<PathBuf> = entries.map(|entry| entry.path()).filter(is_tensors).collect();
    // Some models come twice, once in their maker's own form: count one of them.
    let is_usual = |path: &&PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("model"))
    };
    let usual: BTreeSet<PathBuf> = all.iter().filter(is_usual).cloned().collect();
    Ok(if usual.is_empty() { all } else { usual })
}

fn open(path: &Path) -> Result<File, ShapeError> {
    File::open(path).map_err(|error| unreadable(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, ShapeError> {
    let mut bytes = Vec::new();
    open(path)?
        .take(LONGEST_JSON)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> ShapeError {
    ShapeError::NoFile(format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physics::shape::ShapeSource;
    use std::fs;

    const CONFIG: &str = include_str!("../physics/models/8b.json");

    fn tensors(name: &str) -> Vec<u8> {
        let header = format!(
            "{{\"model.embed_tokens.weight\":{{\"dtype\":\"F16\",\"shape\":[9,2],\"data_offsets\":[0,36]}},\
             \"{name}\":{{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[36,44]}}}}"
        );
        let length = u64::try_from(header.len()).unwrap().to_le_bytes();
        [&length[..], header.as_bytes()].concat()
    }

    #[test]
    fn a_folder_gives_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let said = shape(folder.path()).unwrap_err().to_string();
        assert!(said.contains("has no config.json"), "{said}");

        write("config.json", CONFIG.as_bytes());
        let computed = shape(folder.path()).unwrap();
        assert_eq!((computed.source, computed.parameters), (ShapeSource::Config, 8_030_261_248));
        assert_eq!(shape(&folder.path().join("config.json")), Ok(computed));

        write("consolidated.safetensors", &tensors("other"));
        write("model-1.safetensors", &tensors("a"));
        write("model-2.safetensors", &tensors("b"));
        let counted = shape(folder.path()).unwrap();
        assert_eq!((counted.source, counted.parameters), (ShapeSource::Safetensors, 2 * 22));

        let index =
            r#"{"weight_map": {"a": "model-1.safetensors", "b": "../model-2.safetensors"}}"#;
        write("model.safetensors.index.json", index.as_bytes());
        assert_eq!(shape(folder.path()).unwrap().parameters, 22);
        write("model.safetensors.index.json", br#"{"weight_map": {"a": "gone.safetensors"}}"#);
        let said = shape(folder.path()).unwrap_err().to_string();
        assert!(said.contains("gone.safetensors cannot be read"), "{said}");
    }

    #[test]
    fn a_file_that_is_no_model_is_no_shape() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.gguf");
        fs::write(&file, b"GGUF").unwrap();
        assert!(shape(&file).unwrap_err().to_string().contains("cut short"));
        assert!(shape(&folder.path().join("none.gguf")).is_err());
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sim-tokenizer.json");
        assert!(shape(&tokenizer).unwrap_err().to_string().contains("num_attention_heads"));
    }
}
