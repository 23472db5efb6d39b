//! Nothing about FoundationDB is left out in silence, the feature included.

use std::io::Write;

#[test]
fn the_feature_fdb_is_enabled_where_foundationdb_is_required() {
    let required = std::env::var_os("ABIDE_REQUIRE_FDB").is_some_and(|value| value == "1");
    let enabled = cfg!(feature = "fdb");
    assert!(
        !required || enabled,
        "ABIDE_REQUIRE_FDB=1, but the tests were built without `--features fdb`"
    );
    if !enabled {
        // Not `eprintln`, which the test harness would capture.
        let _ = writeln!(
            std::io::stderr(),
            "NO FOUNDATIONDB: built without `--features fdb`; its tests were not run"
        );
    }
}
