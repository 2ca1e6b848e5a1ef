//! Where the tree is, and the files in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The tree that this program was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

/// One text file of the tree.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Path from the root of the tree, with `/` between parts.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

/// Folders that hold what tools made, not what people wrote.
const NOT_OURS: [&str; 2] = ["target", ".git"];

impl Workspace {
    /// Finds the tree from the place of this crate in it.
    pub(crate) fn of_this_build() -> Result<Self> {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = crate_folder
            .parent()
            .context("xtask has no parent folder")?
            .to_owned();
        Ok(Self { root })
    }

    /// The tree's top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where Cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// Every text file that people wrote, in the order of paths. Files that are not UTF-8 are left out.
    pub(crate) fn text_files(&self) -> Result<Vec<TextFile>> {
        let mut files = Vec::new();
        collect(&self.root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

fn collect(root: &Path, folder: &str, files: &mut Vec<TextFile>) -> Result<()> {
    let place = root.join(folder);
    let entries =
        fs::read_dir(&place).with_context(|| format!("cannot list {}", place.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", place.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry
            .file_type()
            .with_context(|| format!("cannot look at {path}"))?;
        if kind.is_dir() {
            if !(folder.is_empty() && NOT_OURS.contains(&name.as_str())) {
                collect(root, &path, files)?;
            }
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile { path, text });
            }
        }
    }
    Ok(())
}
