//! Paths inside a drive, normalised as Hyperdrive does.
//!
//! Knows text only: no entries, no local file systems. A drive path is absolute, its segments
//! are joined by `/`, and none of them is empty, `.` or `..`. Upper and lower case, composed and
//! decomposed accents, `%20` and spaces all stay as they are.
//!
//! Rules of `unix-path-resolve` 1.0.2 as `hyperdrive` 13.3.4 uses it:
//!
//! | input | becomes |
//! |---|---|
//! | `a\b` | `/a/b`: backslashes separate too |
//! | `C:\a`, `file:///a` | `/a`: a drive letter or `file:` before a separator is dropped |
//! | `http://host/a` | `/a`: any other scheme is dropped with the two segments after it |
//! | `a/../b` | `/b`; climbing above the root is an error |

use thiserror::Error;

/// A name that does not lead to a place in a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// More `..` than segments before them; remove some.
    #[error("the path climbs above the drive's root")]
    AboveRoot,
    /// The root itself where a file is meant; name a file.
    #[error("the path is the drive's root, not a file")]
    Root,
}

/// The drive path of a file called `name`.
///
/// # Errors
/// [`PathError`] if `name` is the root or lies above it.
pub fn normalize(name: &str) -> Result<String, PathError> {
    match resolve("", name)? {
        root if root == "/" => Err(PathError::Root),
        path => Ok(path),
    }
}

/// The drive path of a folder, without a slash at its end: the root is the empty string.
///
/// # Errors
/// [`PathError::AboveRoot`].
pub fn normalize_folder(name: &str) -> Result<String, PathError> {
    match resolve("", name)? {
        root if root == "/" => Ok(String::new()),
        path => Ok(path),
    }
}

/// Where a link at `link` with text `target` leads, in Hyperdrive's reading: a relative target
/// starts **at the link**, as if that were a folder, unlike in POSIX.
///
/// # Errors
/// [`PathError::AboveRoot`].
pub fn resolve(link: &str, target: &str) -> Result<String, PathError> {
    let (absolute, names) = segments(target);
    let mut path = String::new();
    if !absolute {
        climb(&mut path, &segments(link).1)?;
    }
    climb(&mut path, &names)?;
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

/// Whether `path` is exactly what [`normalize`] would make of it.
pub fn is_normal(path: &str) -> bool {
    normalize(path).is_ok_and(|normal| normal == path)
}

/// Whether a file of a local folder, at `path` below it, keeps its name in every peer: neither
/// `/PATH` nor the relative `PATH` is changed by [`normalize`].
pub fn is_portable(path: &str) -> bool {
    let relative = path.strip_prefix('/').unwrap_or(path);
    is_normal(path) && normalize(relative).is_ok_and(|normal| normal == path)
}

fn climb(path: &mut String, names: &[&str]) -> Result<(), PathError> {
    for name in names {
        match *name {
            "" | "." => {}
            ".." => path.truncate(path.rfind('/').ok_or(PathError::AboveRoot)?),
            name => {
                path.push('/');
                path.push_str(name);
            }
        }
    }
    Ok(())
}

/// The segments of `path`, scheme dropped, and whether they begin at the root.
fn segments(path: &str) -> (bool, Vec<&str>) {
    let mut names: Vec<&str> = path.split(['/', '\\']).collect();
    match names.first() {
        Some(scheme) if names.len() > 1 && scheme.ends_with(':') => {
            let local = scheme.encode_utf16().count() == 2 || *scheme == "file:";
            names.drain(..if local { 1 } else { names.len().min(3) });
            (true, names)
        }
        _ => (path.starts_with(['/', '\\']), names),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rules read literally, on a growing string: the naive twin.
    fn naive(name: &str) -> Result<String, PathError> {
        let unified = name.replace('\\', "/");
        let mut rest = unified.as_str();
        if let Some((scheme, after)) = unified.split_once('/')
            && scheme.ends_with(':')
        {
            let hops = match scheme {
                "file:" => 0,
                _ if scheme.chars().count() == 2 => 0,
                _ => 2,
            };
            rest = (0..hops).fold(after, |rest, _| rest.split_once('/').map_or("", |s| s.1));
        }
        let mut path = "/".to_owned();
        for name in rest.split('/') {
            path = match name {
                "" | "." => path,
                ".." if path == "/" => return Err(PathError::AboveRoot),
                ".." => match &path[..path.rfind('/').unwrap()] {
                    "" => "/".to_owned(),
                    parent => parent.to_owned(),
                },
                name if path == "/" => format!("/{name}"),
                name => format!("{path}/{name}"),
            };
        }
        if path == "/" {
            Err(PathError::Root)
        } else {
            Ok(path)
        }
    }

    proptest! {
        /// Goal: the fast form and the twin agree on anything, and what comes out is stable.
        #[test]
        fn agrees_with_its_twin(name in r"([a-z.:\\/]|\.\./|file:|é){0,12}") {
            let normal = normalize(&name);
            prop_assert_eq!(&normal, &naive(&name));
            if let Ok(path) = normal {
                prop_assert!(is_normal(&path));
                prop_assert!(path.starts_with('/') && !path.ends_with('/'));
            }
        }
    }

    #[test]
    fn folders_may_be_the_root() {
        assert_eq!(normalize_folder("/"), Ok(String::new()));
        assert_eq!(normalize_folder("a/"), Ok("/a".to_owned()));
        assert_eq!(normalize_folder(".."), Err(PathError::AboveRoot));
    }

    #[test]
    fn names_that_peers_would_change_are_not_portable() {
        assert!(is_portable("/a/b:c"));
        assert!(is_portable("/c:"));
        assert!(!is_portable("/c:/x"));
        assert!(!is_portable(r"/a\b"));
        assert!(!is_portable("/a/../b"));
        assert!(!is_portable("a"));
    }
}
