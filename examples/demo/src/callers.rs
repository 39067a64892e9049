//! Callers around the world: public addresses that have been where they are for decades.

/// Who calls, from where, and the country the address is known to be in.
const CALLERS: &[(&str, &str, &str)] = &[
    ("Google DNS", "8.8.8.8", "US"),
    ("Quad9", "9.9.9.9", "US"),
    ("MIT", "18.9.22.169", "US"),
    ("Stanford", "171.67.215.200", "US"),
    ("University of Oslo", "129.240.2.6", "NO"),
    ("KTH Stockholm", "130.237.28.40", "SE"),
    ("University of Helsinki", "128.214.222.24", "FI"),
    ("DTU Lyngby", "192.38.84.35", "DK"),
    ("TU Berlin", "130.149.7.201", "DE"),
    ("LMU Munich", "141.84.44.1", "DE"),
    ("ETH Zurich", "129.132.19.216", "CH"),
    ("TU Wien", "128.130.35.76", "AT"),
    ("CNRS Paris", "193.52.24.10", "FR"),
    ("INRIA", "128.93.162.83", "FR"),
    ("University of Cambridge", "131.111.150.25", "GB"),
    ("University of Oxford", "129.67.242.154", "GB"),
    ("TU Delft", "130.161.128.82", "NL"),
    ("KU Leuven", "134.58.64.12", "BE"),
    ("University of Bologna", "137.204.24.1", "IT"),
    ("UPM Madrid", "138.100.200.6", "ES"),
    ("IST Lisbon", "193.136.128.1", "PT"),
    ("CTU Prague", "147.32.3.39", "CZ"),
    ("University of Warsaw", "193.0.71.1", "PL"),
    ("NTUA Athens", "147.102.222.210", "GR"),
    ("Tel Aviv University", "132.66.11.168", "IL"),
    ("University of Tokyo", "133.11.0.1", "JP"),
    ("Kyoto University", "130.54.1.1", "JP"),
    ("KAIST", "143.248.5.153", "KR"),
    ("Tsinghua University", "166.111.4.100", "CN"),
    ("NUS Singapore", "137.132.21.27", "SG"),
    ("IIT Bombay", "103.21.124.10", "IN"),
    ("ANU Canberra", "130.56.60.5", "AU"),
    ("University of Melbourne", "128.250.1.1", "AU"),
    ("University of Auckland", "130.216.1.1", "NZ"),
    ("USP Sao Paulo", "143.107.1.1", "BR"),
    ("UNAM Mexico", "132.248.10.44", "MX"),
    ("UBA Buenos Aires", "157.92.1.1", "AR"),
    ("University of Chile", "146.83.5.1", "CL"),
    ("University of Toronto", "128.100.166.1", "CA"),
    ("McGill", "132.216.177.160", "CA"),
    ("UCT Cape Town", "137.158.154.230", "ZA"),
    ("Google DNS over IPv6", "2001:4860:4860::8888", "US"),
    ("Cloudflare over IPv6", "2606:4700:4700::1111", "US"),
    ("Quad9 over IPv6", "2620:fe::9", "US"),
    ("RIPE NCC over IPv6", "2001:67c:2e8:22::c100:68b", "NL"),
    ("Hetzner over IPv6", "2a01:4f8:0:1::1", "DE"),
    ("OVH over IPv6", "2001:41d0:1:1::1", "FR"),
    ("SUNET over IPv6", "2001:6b0:1::1", "SE"),
    ("UNINETT over IPv6", "2001:700:0:1::1", "NO"),
    ("FUNET over IPv6", "2001:708:10:1::1", "FI"),
    ("SWITCH over IPv6", "2001:620:0:1::1", "CH"),
    ("SURFnet over IPv6", "2001:610:0:1::1", "NL"),
    ("JANET over IPv6", "2001:630:0:1::1", "GB"),
    ("WIDE over IPv6", "2001:200:dff:fff1:216:3eff:feb1:44d7", "JP"),
    ("KISA over IPv6", "2001:dc5:0:1::1", "KR"),
    ("registro.br over IPv6", "2001:12ff:0:1::1", "BR"),
    ("AARNet over IPv6", "2001:388:1:1::1", "AU"),
    ("CERNET over IPv6", "2001:250:1::1", "CN"),
    ("TWNIC over IPv6", "2001:c50:ffff:1::1", "TW"),
    ("NIC.cz over IPv6", "2001:1488:0:3::2", "CZ"),
];

/// One login.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Names the request in the log.
    pub(crate) id: String,
    pub(crate) who: &'static str,
    pub(crate) address: &'static str,
    pub(crate) country: &'static str,
    /// What the load balancer sends as `X-Forwarded-For`.
    pub(crate) forwarded_for: String,
    pub(crate) forged: bool,
    pub(crate) username: &'static str,
    pub(crate) password: &'static str,
    pub(crate) expected_status: u16,
}

/// A login from each caller: some with a wrong password, some that lie about where they are.
pub(crate) fn calls() -> Vec<Call> {
    let call = |(i, &(who, address, country)): (usize, &(&'static str, &'static str, &'static str))| {
        // What a caller writes itself comes first; the load balancer appends the address it saw.
        let forged = i % 6 == 5;
        let forwarded_for = if forged { format!("203.0.113.66, 1.1.1.1, {address}") } else { address.to_owned() };
        let (password, expected_status) = if i % 5 == 3 { ("guessed", 401) } else { ("amazing", 200) };
        Call {
            id: format!("demo-{i}"),
            who,
            address,
            country,
            forwarded_for,
            forged,
            username: "grace",
            password,
            expected_status,
        }
    };
    CALLERS.iter().enumerate().map(call).collect()
}
