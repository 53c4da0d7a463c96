//! What holds for every source file: short enough to read, and no pointer that leads nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 100;

/// The Rust files of the repository, with what stands in them; none without git, as in an unpacked
/// archive.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root)
        .output()
        .expect("git lists the files");
    let paths = String::from_utf8(listed.stdout).expect("paths are text");
    let read = |path: &str| Some((PathBuf::from(path), fs::read_to_string(root.join(path)).ok()?));
    paths.lines().filter_map(read).collect()
}

#[test]
fn a_file_has_one_subject_and_at_most_500_lines() {
    let too_long: Vec<_> = sources()
        .into_iter()
        .map(|(path, source)| (path, source.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(too_long.is_empty(), "split {too_long:?}");
}

#[test]
fn fewer_than_one_line_in_a_hundred_is_wider_than_100_columns() {
    let sources = sources();
    let lines: Vec<_> = sources.iter().flat_map(|(_, source)| source.lines()).collect();
    let wide = lines.iter().filter(|line| line.chars().count() > COLUMNS_MAX).count();
    assert!(wide * 100 < lines.len().max(1), "{wide} of {} lines are too wide", lines.len());
}

#[test]
fn no_comment_points_outside_the_repository_and_no_file_is_included_by_path() {
    // Put together here, so that this file does not name them.
    let pointers =
        [concat!("design", " 3"), concat!("reference,", " section"), concat!("#[", "path")];
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|(_, source)| pointers.iter().any(|pointer| source.contains(pointer)))
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "{found:?} name one of {pointers:?}");
}
