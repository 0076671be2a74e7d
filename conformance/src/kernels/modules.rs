//! Which modules a kernel needs for the cases, in the order to load them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What the cases can use, and what that needs without saying so: kernel TLS
/// asks for its ciphers by the name of an algorithm, not of a module. Names
/// differ between kernels; what is built in or in another module is passed over.
pub(super) const WANTED: [&str; 26] = [
    "virtio_pci",
    "virtio_net",
    "veth",
    "tun",
    "sch_netem",
    "sch_tbf",
    "sch_fq",
    "tcp_bbr",
    "aesni_intel",
    "ghash_clmulni_intel",
    "aes_generic",
    "ghash_generic",
    "cryptd",
    "gcm",
    "ccm",
    "ctr",
    "seqiv",
    "chacha_generic",
    "chacha",
    "chacha_x86_64",
    "poly1305_generic",
    "libpoly1305",
    "poly1305_x86_64",
    "chacha20poly1305",
    "tls",
    "failover",
];

/// Those without which cases are lacking something; the others are ciphers that
/// a kernel may have in another form.
const NEEDED: [&str; 6] = ["virtio_net", "veth", "tun", "sch_netem", "sch_tbf", "tls"];

/// A module, uncompressed.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) image: Vec<u8>,
}

/// Modules in an order in which each has what it depends on.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) modules: Vec<Module>,
    /// Needed ones that this kernel has neither as a module nor built in.
    pub(super) missing: Vec<String>,
}

/// Selects from a folder such as `/lib/modules/RELEASE`.
pub(super) fn select(folder: &Path) -> io::Result<Selection> {
    let mut selecting = Selecting {
        files: index(folder)?,
        built_in: built_in(folder),
        seen: BTreeSet::new(),
        selection: Selection::default(),
    };
    for name in WANTED {
        selecting.add(name)?;
    }
    Ok(selecting.selection)
}

#[derive(Debug)]
struct Selecting {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    seen: BTreeSet<String>,
    selection: Selection,
}

impl Selecting {
    fn add(&mut self, name: &str) -> io::Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            if NEEDED.contains(&name) && !self.built_in.contains(name) {
                self.selection.missing.push(name.to_owned());
            }
            return Ok(());
        };
        let image = read(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        for dependency in depends(&image) {
            self.add(&dependency)?;
        }
        self.selection.modules.push(Module { name: name.to_owned(), image });
        Ok(())
    }
}

/// Every module below `folder` by name. The kernel takes `-` and `_` in names
/// for the same.
fn index(folder: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Some((name, _)) = name.split_once(".ko") {
                files.insert(name.replace('-', "_"), entry.path());
            }
        }
    }
    Ok(files)
}

/// Names from `modules.builtin`.
fn built_in(folder: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let names = text.lines().filter_map(|line| {
        let (_, file) = line.rsplit_once('/')?;
        Some(file.strip_suffix(".ko")?.replace('-', "_"))
    });
    names.collect()
}

/// A module's image, whichever way it was compressed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::read(path)?;
    let mut image = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(file),
        Some("xz") => lzma_rust2::XzReader::new(&file[..], true).read_to_end(&mut image)?,
        Some("zst") => ruzstd::decoding::StreamingDecoder::new(&file[..])
            .map_err(io::Error::other)?
            .read_to_end(&mut image)?,
        Some("gz") => flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut image)?,
        _ => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "compressed in an unknown way"));
        }
    };
    Ok(image)
}

/// The modules that `image` names in its `.modinfo`, which is a list of
/// `key=value` between zero bytes (`include/linux/moduleinfo.h`).
fn depends(image: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = image.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = image[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = value.split(|byte| *byte == b',').filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_what_is_lacking_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("kernel/net")).unwrap();
        let module = |depends: &str| format!("\x7fELF\0license=GPL\0depends={depends}\0x");
        fs::write(root.join("kernel/net/tls.ko"), module("a-b,veth")).unwrap();
        fs::write(root.join("kernel/a-b.ko"), module("veth")).unwrap();
        fs::write(root.join("kernel/veth.ko"), module("")).unwrap();
        fs::write(root.join("modules.builtin"), "kernel/drivers/net/tun.ko\n").unwrap();
        let selection = select(root).unwrap();
        let names: Vec<_> = selection.modules.iter().map(|module| &*module.name).collect();
        assert_eq!(names, ["veth", "a_b", "tls"]);
        assert_eq!(selection.missing, ["virtio_net", "sch_netem", "sch_tbf"]);
    }

    #[test]
    fn a_module_that_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for extension in ["ko.xz", "ko.zst", "ko.gz", "ko.new"] {
            let path = folder.path().join(format!("tls.{extension}"));
            fs::write(&path, "not compressed").unwrap();
            let error = select(folder.path()).unwrap_err().to_string();
            assert!(error.contains(extension), "{error}");
            fs::remove_file(path).unwrap();
        }
    }
}
