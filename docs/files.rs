//! The files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// The files under this folder whose names end with `ending`, except built or fetched files and
/// those with a name in `leave_out`, which may also be the name of a folder.
pub(crate) fn files(folder: &Path, ending: &str, leave_out: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be read") {
            let path = entry.expect("a folder can be read").path();
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            // A symbolic link, such as that of a package to the README, is read at its target.
            if name.starts_with('.') || name == "target" || path.is_symlink() {
                continue;
            }
            if leave_out.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}
