//! Any bytes as `X-Forwarded-For`: no panic, no entry out of nothing, and what is appended reads the same whatever is before.

use geo::{Node, x_forwarded_for};

pub fn check(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
    let entries: Vec<_> = x_forwarded_for(&lines).collect();
    assert!(entries.len() <= lines.len() + data.iter().filter(|&&b| b == b',').count());
    for entry in &entries {
        if let Ok(Node::Address(ip, _)) = entry {
            assert_eq!(model::canonical_ip(*ip), *ip);
        }
    }

    let appended = [data, b", [2001:db8::1%eth0]:80"].concat();
    let lines: Vec<&[u8]> = appended.split(|&b| b == b'\n').collect();
    let mut again = x_forwarded_for(&lines);
    assert_eq!(again.next(), Some(Ok(Node::Address("2001:db8::1".parse().unwrap(), Some(80)))));
    assert!(again.eq(entries));
}
