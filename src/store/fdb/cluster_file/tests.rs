use super::*;

#[test]
fn what_fdbcli_writes_is_accepted() {
    for contents in [
        "docker:docker@127.0.0.1:4500",
        "# DO NOT EDIT!\n# This file is auto-generated\nprod_1:aB3@10.0.0.1:4500,10.0.0.2:4500\n",
        "a:b@fdb-1.example.com:4500:tls,fdb-2.example.com:4500:tls",
        "a:b@[::1]:4500",
        "a:b@[fd00::2]:4500:tls(fromHostname)",
        "  a:b@127.0.0.1:4500  # the only one\n\n",
    ] {
        assert_eq!(check_contents(contents), Ok(()), "{contents}");
    }
}

#[test]
fn a_malformed_file_is_refused() {
    for contents in [
        "",
        "# nothing but a comment",
        "127.0.0.1:4500",
        "a@127.0.0.1:4500",
        ":b@127.0.0.1:4500",
        "a:@127.0.0.1:4500",
        "a-b:c@127.0.0.1:4500",
        "a:b:c@127.0.0.1:4500",
        "a:b@",
        "a:b@127.0.0.1",
        "a:b@127.0.0.1:",
        "a:b@127.0.0.1:0",
        "a:b@127.0.0.1:70000",
        "a:b@127.0.0.1:4500,",
        "a:b@:4500",
        "a:b@::1:4500",
        "a:b@[::1:4500",
    ] {
        assert!(check_contents(contents).is_err(), "{contents}");
    }
}

#[test]
fn a_message_quotes_little_of_a_foreign_file() {
    let problem = check_contents(&format!("a:b@{}", "\u{7}x".repeat(30_000))).unwrap_err();
    assert!(
        problem.len() < 200 && !problem.contains('\u{7}'),
        "{problem}"
    );
}

#[test]
fn neither_a_directory_nor_a_huge_file_nor_a_zero_byte_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(check(path), Err("it is not a file".to_owned()));
    let huge = dir.path().join("huge");
    std::fs::write(&huge, vec![b'#'; 70_000]).unwrap();
    assert!(
        check(huge.to_str().unwrap())
            .unwrap_err()
            .contains("60000 bytes")
    );
    assert!(check("a\0b").unwrap_err().contains("zero byte"));
}
