//! The table in the docs is complete: every public function that takes anything has a row, and every row a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A function by its type and its name; futures share the rows of their synchronous twins.
type Named = (String, String);

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns what follows a list in brackets that `text` begins with, if it does.
fn after_brackets(text: &str, open: char, close: char) -> &str {
    if !text.starts_with(open) {
        return text;
    }
    let mut depth = 0;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        if letter == open {
            depth += 1;
        } else if letter == close && !matches!(before, '-' | '=') {
            depth -= 1;
            if depth == 0 {
                return &text[at + 1..];
            }
        }
        before = letter;
    }
    panic!("brackets that do not end: {text:.60}")
}

fn word(text: &str) -> &str {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
}

/// Returns the public functions of a source that take more than themselves.
fn functions(source: &str) -> Vec<Named> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut of_type = None;
    let mut at = 0;
    for line in source.split_inclusive('\n') {
        let text = line.trim_start();
        if let Some(rest) = text.strip_prefix("impl").filter(|rest| rest.starts_with(['<', ' '])) {
            let name = after_brackets(rest.trim_start(), '<', '>').trim_start().trim_start_matches('$');
            // Of a trait's functions, its own documentation speaks.
            of_type = (!line.contains(" for ")).then(|| word(name).to_owned());
        }
        let mut rest = text.strip_prefix("pub ").unwrap_or_default();
        for qualifier in ["const ", "async "] {
            rest = rest.strip_prefix(qualifier).unwrap_or(rest);
        }
        if let (Some(rest), Some(of_type)) = (rest.strip_prefix("fn "), &of_type) {
            let name = word(rest);
            let offset = source[at..].find(name).expect("the name is in its line");
            let arguments = after_brackets(&source[at + offset + name.len()..], '<', '>');
            let behind = after_brackets(arguments, '(', ')');
            let arguments = arguments[1..arguments.len() - behind.len() - 1].replace(['&', '\n'], " ");
            let arguments = arguments.trim().trim_start_matches("mut ").trim_start_matches("self");
            if !arguments.trim_matches([' ', ',']).is_empty() {
                found.push((of_type.clone(), name.replace("_async", "")));
            }
        }
        at += line.len();
    }
    found
}

struct Row {
    functions: Vec<Named>,
    tests: Vec<String>,
}

/// Returns what stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let page = read("src/docs/bad_input.md");
    let lines = page.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "a row has four cells: {line}");
        let (types, names) = cells[0].split_once(": ").unwrap_or_else(|| panic!("no type in {line}"));
        let names = quoted(names);
        let functions =
            quoted(types).into_iter().flat_map(|of| names.iter().map(move |name| (of.clone(), name.clone())));
        Row { functions: functions.collect(), tests: quoted(cells[3]) }
    };
    lines.map(row).collect()
}

fn public() -> BTreeSet<Named> {
    let mut files = Vec::new();
    files_below(&Path::new(ROOT).join("src"), &mut files);
    // What builds for fuzzing and for simulations alone have.
    let is_apart =
        |path: &PathBuf| path.ends_with("src/fuzzing.rs") || path.components().any(|part| part.as_os_str() == "sim");
    let sources = files.iter().filter(|path| !is_apart(path));
    let mut functions: BTreeSet<Named> =
        sources.flat_map(|path| functions(&fs::read_to_string(path).unwrap())).collect();
    // Both builders have these, by a macro that calls each of them `$builder`.
    let by_macro: Vec<Named> = functions.iter().filter(|(of_type, _)| of_type == "builder").cloned().collect();
    for (of_type, name) in by_macro {
        functions.extend(["CacheBuilder", "TieredCacheBuilder"].map(|builder| (builder.to_owned(), name.clone())));
        functions.remove(&(of_type, name));
    }
    functions
}

#[test]
fn every_public_function_has_a_row() {
    let public = public();
    assert!(public.len() > 150, "the sources are not read as they are written: {public:?}");
    let rows = rows();
    let listed: BTreeSet<&Named> = rows.iter().flat_map(|row| &row.functions).collect();
    let missing: Vec<&Named> = public.iter().filter(|function| !listed.contains(function)).collect();
    assert!(missing.is_empty(), "src/docs/bad_input.md has no row for {missing:?}");
    // A row of several types has what any of them has.
    for row in &rows {
        let (there, gone): (Vec<_>, Vec<_>) = row.functions.iter().partition(|function| public.contains(function));
        for (of_type, name) in gone {
            let is_known =
                there.iter().any(|(known, _)| known == of_type) && there.iter().any(|(_, known)| known == name);
            assert!(is_known, "src/docs/bad_input.md has a row for `{of_type}::{name}`, which is not there");
        }
    }
}

#[test]
fn every_row_has_a_test_and_every_test_a_row() {
    let named: BTreeSet<String> = rows().into_iter().flat_map(|row| row.tests).collect();
    let mut files = Vec::new();
    files_below(&Path::new(ROOT).join("tests/bad_input"), &mut files);
    let mut tests = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("table.rs")) {
        let source = fs::read_to_string(file).unwrap();
        tests.extend(
            source.split("#[test]").skip(1).map(|test| word(test.trim_start().trim_start_matches("fn ")).to_owned()),
        );
    }
    assert!(!tests.is_empty());
    assert_eq!(named, tests);
    assert!(rows().iter().all(|row| !row.tests.is_empty()));
}
