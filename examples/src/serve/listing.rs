//! A directory without an index, as a page.

use super::path::{SafePath, encode};
use std::fmt::Write;
use std::io;
use std::path::Path;

/// Most names on a page.
const MAX_NAMES: usize = 10_000;

/// The names in the directory that is at `path` below the root and at `place`
/// in the file system. Hidden ones are left out.
///
/// # Errors
/// If the directory cannot be read.
pub fn page(path: &SafePath, place: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for item in place.read_dir()?.take(MAX_NAMES) {
        let item = item?;
        let name = item.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            let is_directory = item.file_type().is_ok_and(|kind| kind.is_dir());
            names.push((name, if is_directory { "/" } else { "" }));
        }
    }
    names.sort();
    let title = escape(&format!("/{}", path.names().to_string_lossy()));
    let mut page = format!("<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n");
    if !path.names().as_os_str().is_empty() {
        page.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (name, slash) in names {
        // "./" keeps a name with a colon from being read as a scheme.
        let (url, text) = (encode(&name), escape(&name.to_string_lossy()));
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<li><a href=\"./{url}{slash}\">{text}{slash}</a>");
    }
    page.push_str("</ul>\n");
    Ok(page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_where_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["<b>&\"", "a b", ".hidden"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        let page = page(&SafePath::new("/x%3Cy/").unwrap(), directory.path()).unwrap();
        assert!(page.contains("<h1>/x&lt;y</h1>"), "{page}");
        assert!(page.contains("<a href=\"./%3Cb%3E&%22\">&lt;b&gt;&amp;&quot;</a>"), "{page}");
        assert!(page.contains("<a href=\"./a%20b\">a b</a>"), "{page}");
        assert!(page.contains("<a href=\"./sub/\">sub/</a>"), "{page}");
        assert!(!page.contains("hidden"), "{page}");
    }
}
