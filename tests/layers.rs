//! Dependencies point one way: a room of the library names only rooms below it. This reads the sources
//! and fails on the first that does not.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, the lowest first. A room may name itself and those before it.
const ROOMS: [&str; 12] = [
    "platform",
    "primitive",
    "tls",
    "stack",
    "coroutine",
    "task",
    "scheduler",
    "time",
    "reactor",
    "sync",
    "thread",
    "patch",
];

/// Crates that one room keeps to itself.
const KEPT: [(&str, &[&str]); 3] = [
    ("corosensei", &["coroutine", "stack"]),
    ("crossbeam_deque", &["scheduler"]),
    ("mio", &["reactor"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let name = Path::new(&part).file_stem().and_then(|stem| stem.to_str());
        matches!(name, Some("tests" | "models" | "fuzzing"))
    })
}

#[test]
fn each_room_names_only_rooms_below_it() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime");
    let mut checked = 0;
    for (level, room) in ROOMS.iter().enumerate() {
        let mut files = Vec::new();
        sources(&library.join(room), &mut files);
        assert!(!files.is_empty(), "the room {room} is gone");
        for file in files.iter().filter(|file| !is_test(file)) {
            let code = code(file);
            for higher in &ROOMS[level + 1..] {
                for mention in [format!("crate::{higher}::"), format!("crate::{higher};")] {
                    assert!(
                        !code.contains(&mention),
                        "{} names {higher}, which is above {room}",
                        file.display()
                    );
                }
            }
            for (kept, rooms) in KEPT {
                let names =
                    code.contains(&format!("use {kept}")) || code.contains(&format!("{kept}::"));
                assert!(
                    !names || rooms.contains(room),
                    "{} names {kept}, which {rooms:?} keep to themselves",
                    file.display()
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} files were found");
}

#[test]
fn every_file_says_what_it_is_for_and_is_of_bearable_length() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["runtime", "tests", "examples"] {
        sources(&root.join(folder), &mut files);
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} does not begin by saying what it is for",
            file.display()
        );
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines", file.display());
    }
}
