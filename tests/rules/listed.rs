//! What the documents list is there: the tests of the rules, the numbers and the spans.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The files with Rust code below a directory, joined.
fn code_below(directory: &Path, code: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            code_below(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// What stands in back-quotes in a cell of the table.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_rule_has_a_test_and_every_mistake_named_is_planted_by_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(root.join("src/docs/rules.md")).unwrap();
    let (mut own, mut all) = (String::new(), String::new());
    code_below(&root.join("tests/rules"), &mut own);
    code_below(&root.join("src"), &mut all);
    all.push_str(&own);
    let rows = rules.lines().filter(|line| line.starts_with("| "));
    let mut rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').collect()).collect();
    rows.remove(0);
    assert!(rows.len() > 20, "{} rules", rows.len());
    for row in rows {
        let [_, rule, tests, mistakes, _] = row[..] else {
            panic!("not three cells: {row:?}");
        };
        let tests = quoted(tests).filter(|name| name.contains('_'));
        let tests: Vec<&str> = tests.collect();
        assert!(!tests.is_empty(), "no test for: {rule}");
        for name in tests {
            assert!(all.contains(&format!("fn {name}()")), "there is no {name}");
        }
        for mistake in quoted(mistakes) {
            let planted = format!("holds_only_without(Bug::{mistake},");
            let flat = own.replace(['\n', ' '], "");
            assert!(flat.contains(&planted), "nobody plants {mistake}");
        }
    }
}

/// The names that follow a beginning, up to the next quote.
fn names_after<'t>(text: &'t str, beginning: &str) -> BTreeSet<&'t str> {
    let names = text.split(beginning).skip(1);
    names
        .map(|rest| rest.split(['"', '`']).next().unwrap())
        .collect()
}

#[test]
fn every_number_and_every_span_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let told = fs::read_to_string(root.join("src/docs/observability.md")).unwrap();
    let mut code = String::new();
    code_below(&root.join("src"), &mut code);
    let code = code.replace(['\n', ' '], "");
    for (macros, names) in [
        (&["counter!(\"", "histogram!(\""][..], "| `abide_"),
        (&["_span!(\""][..], "| `abide."),
    ] {
        let used: BTreeSet<&str> = macros
            .iter()
            .flat_map(|call| names_after(&code, call))
            .collect();
        let told: BTreeSet<String> = names_after(&told, names)
            .into_iter()
            .map(|rest| format!("{}{rest}", names.trim_start_matches("| `")))
            .collect();
        assert!(used.len() > 3);
        assert!(
            used.iter().copied().eq(told.iter().map(String::as_str)),
            "{used:?} {told:?}"
        );
    }
}
