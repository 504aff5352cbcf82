use proptest::prelude::*;

use super::*;

fn cover(prefix: &str, path: &str) -> Cover {
    prefix.parse::<PathPrefix>().unwrap().cover(path)
}

#[test]
fn a_prefix_ends_on_a_segment_border() {
    for (prefix, path, expected) in [
        ("/v1/", "/v1/x", Cover::Inside),
        ("/v1/", "/v1/", Cover::Inside),
        ("/v1/", "/v1", Cover::Outside),
        ("/v1/", "/v10/x", Cover::Outside),
        ("/v1", "/v1", Cover::Inside),
        ("/v1", "/v1/x/y", Cover::Inside),
        ("/v1", "/v10", Cover::Outside),
        ("/v1", "/V1", Cover::Outside), // RFC 3986 §6.2.2.1: paths are case-sensitive
        ("/v1/a/", "/v1/b/", Cover::Outside),
        ("/", "/../%", Cover::Inside),
        ("/", "*", Cover::Inside),
    ] {
        assert_eq!(cover(prefix, path), expected, "{prefix} {path}");
    }
}

#[test]
fn equivalent_encodings_and_dot_segments_are_seen_through() {
    for path in [
        "/%76%31/x",
        "/v1/./x",
        "/a/../v1/x",
        "/v1/a/..",
        "/../v1/x",
        "/v1/a/%2e%2e/b",
        "/a/.%2E/v1/",
        "/v1/group%2Fproject",
        "/v1/a;b=c",
        "/v1/a//b",
        "/v1/a%20b",
        "/v1/ü",
    ] {
        assert_eq!(cover("/v1/", path), Cover::Inside, "{path}");
    }
    for path in [
        "/v1/../x",
        "/v1/%2e%2e/admin",
        "/v1/.%2e/v10/",
        "/v1/..",
        "/v1/a/../../b",
        "/%2e/x",
    ] {
        assert_eq!(cover("/v1/", path), Cover::Outside, "{path}");
    }
    assert_eq!(cover("/a@b", "/a%40b/c"), Cover::Inside);
    assert_eq!(cover("/ü", "/%c3%bc"), Cover::Inside);
}

#[test]
fn what_servers_read_differently_is_unclear() {
    for path in [
        "/v1/..;x/admin",
        "/v1/..%3bx/admin",
        "/v1/%2e%2e%2fadmin",
        "/v1/..%5cadmin",
        "/v1/..\\admin",
        "/v1/a//../../admin",
        "/v1/a%2fb//../../z",
        "/v1%2fx",
        "//v1/x",
        "/v1;a/x",
        "/v1\\x",
        "/v1/%",
        "/v1/%zz",
        "/v1/%2",
        "/v1/%00",
        "/v1/%252e%252e/admin",
        "/v1/%c0%ae%c0%ae/x",
        "/v1/x?y",
        "/v1/x#y",
        "/v1/a b",
        "v1/x",
        "",
        "*",
    ] {
        assert_eq!(cover("/v1/", path), Cover::Unclear, "{path}");
    }
}

#[test]
fn a_prefix_is_in_normal_form() {
    for prefix in [
        "", "v1", "/v1//", "/v1/../", "/v1/%2e/", "/v1;a", "/v1%2fa", "/v1?a", "/v1 ",
    ] {
        assert_eq!(
            prefix.parse::<PathPrefix>(),
            Err(RuleError::Path),
            "{prefix}"
        );
    }
}

proptest! {
    #[test]
    fn no_mix_of_readings_leads_out_of_an_inside_path(
        tail in "(/|\\.|%2e|%2f|\\\\|;|%5c|a|%3b|\\.\\.){0,10}",
        (slash, backslash, merge, parameters) in any::<(bool, bool, bool, bool)>(),
    ) {
        let path = format!("/v1/{tail}");
        if cover("/v1", &path) != Cover::Inside {
            return Ok(());
        }
        let mut read = path.replace("%2e", ".").replace("%3b", ";");
        if slash { read = read.replace("%2f", "/"); }
        if backslash { read = read.replace("%5c", "/").replace('\\', "/"); }
        let mut depth = 0_i32;
        for segment in read.split('/').skip(1) {
            let segment = if parameters { segment.split(';').next().unwrap_or("") } else { segment };
            match segment {
                "." => {}
                "" if merge => {}
                ".." => { depth -= 1; prop_assert!(depth > 0, "{}", path); }
                _ => depth += 1,
            }
        }
    }
}
