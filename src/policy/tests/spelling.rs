//! No spelling of a denied host is allowed.

use proptest::prelude::*;

use super::*;

/// Upper case for the letters that `mask` says, a full-width form for the others it says.
fn respelled(name: &str, mask: u64, wide: u64) -> String {
    let bit = |mask: u64, at: usize| mask >> (at % 64) & 1 == 1;
    let respell = |(at, character): (usize, char)| match character {
        '.' if bit(wide, at) => '。',
        _ if bit(wide, at) && character.is_ascii_alphanumeric() => {
            char::from_u32(u32::from(character) + 0xfee0).unwrap()
        }
        _ if bit(mask, at) => character.to_ascii_uppercase(),
        _ => character,
    };
    name.chars().enumerate().map(respell).collect()
}

proptest! {
    #[test]
    fn no_spelling_of_a_denied_name_is_allowed(mask: u64, wide: u64, dot: bool, below in "([a-z0-9]{1,5}\\.){0,3}") {
        let any = Rule::new("any", Action::Allow, vec![HostPattern::Any]).unwrap().with_ports(Ports::Any);
        let deny = ["denied.example.com", "*.denied.example.com", "*.xn--bcher-kva.example", "xn--bcher-kva.example"];
        let policy = Arc::new(builder(&["0.0.0.0/0:*", "[::/0]:*"], &deny).rule(any).build());
        for base in ["denied.example.com", "bücher.example"] {
            let dot = if dot { "." } else { "" };
            let authority = format!("{}{dot}:443", respelled(&format!("{below}{base}"), mask, wide));
            if let Ok(target) = Target::from_authority(&authority) {
                let verdict = policy.authorize(&nobody(), &target, CONNECT);
                prop_assert!(verdict.is_err(), "{authority} as {target}");
            }
        }
    }

    #[test]
    fn no_spelling_of_a_denied_address_is_allowed(last: u16, form in 0..9_usize) {
        let bits = 0x0a01_0000 | u32::from(last);
        let address = Ipv4Addr::from_bits(bits);
        let spelling = match form {
            0 => format!("{bits}"),
            1 => format!("0x{bits:X}"),
            2 => format!("0{bits:o}."),
            3 => format!("10.0x1{last:04x}"),
            4 => format!("012.1.{last}"),
            5 => format!("[::ffff:{address}]"),
            6 => format!("[64:ff9b::{address}]"),
            7 => format!("[2002:a01:{last:x}::1]"),
            _ => format!("[::{address}]"),
        };
        let policy = policy(&["0.0.0.0/0:*", "[::/0]:*"], &["10.1.0.0/16"]);
        let verdict = policy.authorize(&nobody(), &target(&format!("{spelling}:443")), CONNECT);
        prop_assert!(verdict.is_err(), "{spelling}");
    }
}
