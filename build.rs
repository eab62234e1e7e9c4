//! Embeds the engine files, so that a copied binary still knows its engines.
//!
//! Adding `engines/NAME.toml` is all that it takes to add an engine.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let engines = root.join("engines");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=engines");

    let mut files: Vec<PathBuf> =
        fs::read_dir(&engines)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();

    let mut table = String::from("const BUILT_IN: &[(&str, &str)] = &[\n");
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        if name != "common" {
            table += &format!("    ({name:?}, {}),\n", include(file));
        }
    }
    table += &format!("];\nconst COMMON: &str = {};\n", include(&engines.join("common.toml")));
    fs::write(out.join("engines.rs"), table)
}

fn include(file: &Path) -> String {
    format!("include_str!({:?})", file.to_string_lossy())
}
