//! Whatever fields come, none of a connection's own is left; input is one field a line.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use libfuzzer_sys::fuzz_target;
use outgate::headers::{
    basic_user, count_forwards, framing_is_plain, host_is_sound, put_hop_by_hop, take_hop_by_hop,
};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let _ = (framing_is_plain(&headers), host_is_sound(&headers, Version::HTTP_11), basic_user(&headers));
    let _ = count_forwards(&mut headers);
    let nominated = nominated(&headers);
    let hop = take_hop_by_hop(&mut headers);
    for gone in nominated {
        assert!(!headers.contains_key(&gone), "{gone}");
    }
    for gone in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "proxy-authorization"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    put_hop_by_hop(&mut headers, hop);
    assert!(!(headers.contains_key("transfer-encoding") && headers.contains_key("content-length")));
});

/// The fields that `Connection` nominates, but for `close`: that is an option, and no field has its name (RFC 9110
/// §16.3.1).
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all("connection").iter().map(HeaderValue::as_bytes);
    let tokens = values.flat_map(|value| value.split(|byte| *byte == b','));
    let names = tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok());
    names.filter(|name| name != "close").collect()
}
