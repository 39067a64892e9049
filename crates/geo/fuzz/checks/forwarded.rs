//! Any bytes as `Forwarded`: no panic, no element out of nothing, and what is appended reads the same whatever is before.

use geo::{Element, Node, forwarded};

pub fn check(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
    let elements: Vec<_> = forwarded(&lines).collect();
    assert!(elements.len() <= lines.len() + data.iter().filter(|&&b| b == b',').count());
    for element in &elements {
        if let Ok(Element { client: Node::Address(ip, _), .. }) = element {
            assert_eq!(model::canonical_ip(*ip), *ip);
        }
    }

    let appended = [data, b", for=\"[2001:db8::1]:80\";proto=https;host=\"a,\\\",b\""].concat();
    let lines: Vec<&[u8]> = appended.split(|&b| b == b'\n').collect();
    let mut again = forwarded(&lines);
    let client = Node::Address("2001:db8::1".parse().unwrap(), Some(80));
    assert_eq!(again.next(), Some(Ok(Element { client, proto: Some(model::Scheme::Https) })));
    assert!(again.eq(elements));
}
