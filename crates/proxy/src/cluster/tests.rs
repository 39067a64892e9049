use super::*;

fn addrs(n: u16) -> Vec<SocketAddr> {
    (0..n).map(|i| SocketAddr::from(([192, 0, (i >> 8) as u8, i as u8], 80))).collect()
}

fn alike(addrs: &[SocketAddr]) -> Vec<(SocketAddr, usize)> {
    addrs.iter().map(|addr| (*addr, 1)).collect()
}

fn cluster(n: u16, change: impl FnOnce(&mut Service)) -> Arc<Cluster> {
    let mut settings = Service::new(Source::Static(addrs(n)));
    change(&mut settings);
    Cluster::new(settings)
}

#[test]
fn bounds_are_given_back() {
    let cluster = cluster(1, |s| s.breaker = Breaker { connections: 1, pending: 1, requests: 2 });
    let first = cluster.enter().unwrap();
    let _second = cluster.enter().unwrap();
    assert_eq!(cluster.enter().unwrap_err().cause, Cause::CircuitBreaker);
    drop(first);
    let _third = cluster.enter().unwrap();
    let _connection = cluster.connection().unwrap();
    assert!(cluster.connection().is_err() && cluster.wait().is_ok());
    assert_eq!(cluster.state().refused, [("connections", 1), ("pending", 0), ("requests", 1)]);
}

#[test]
fn as_many_are_ejected_as_the_share_allows_and_never_all() {
    for (endpoints, share, ejected) in [(3, 0.67, 2), (3, 0.5, 1), (1, 1.0, 0), (10, 1.0, 9), (10, 0.3, 3), (2, 0.1, 0)]
    {
        let cluster = cluster(endpoints, |s| s.outliers.max_ejected = share);
        let outliers = Outliers { consecutive: 1, ..Outliers::default() };
        for endpoint in &cluster.endpoints.load().used {
            endpoint.failed(Failed::Badly, false, cluster.now(), &outliers, || cluster.may_eject());
        }
        let out = cluster.state().endpoints.iter().filter(|e| e.state == "ejected").count();
        assert_eq!(out, ejected, "{endpoints} endpoints, {share}");
    }
}

#[test]
fn what_stays_keeps_its_state_and_what_goes_is_gone() {
    let cluster = cluster(3, |_| {});
    cluster.endpoints.load().used[1].succeeded(Duration::from_millis(5), true, cluster.now());
    let known = cluster.endpoints.load().used[1].addr;
    cluster.set_endpoints(&alike(&[known, "192.0.2.77:80".parse().unwrap()]));
    let state = cluster.state();
    assert_eq!((state.endpoints.len(), state.known), (2, 2));
    assert!(state.endpoints.iter().all(|e| e.expected.is_some() == (e.addr == known)));
}

#[test]
fn a_subset_is_stable_and_changes_little() {
    let all = alike(&addrs(10_000));
    let chosen = subset(&all, 200);
    assert_eq!(chosen.len(), 200);
    assert_eq!(chosen, subset(&all, 200));
    let without: Vec<_> = all.iter().copied().filter(|one| *one != chosen[0]).collect();
    let again = subset(&without, 200);
    assert_eq!(chosen.iter().filter(|one| again.contains(one)).count(), 199);
    assert_eq!(subset(&alike(&addrs(3)), 200).len(), 3);
}

#[test]
fn a_name_that_leads_to_one_address_is_unbalanced_and_a_single_static_one_is_meant_so() {
    let cluster = Cluster::new(Service::new(Source::Dns { name: "a".into(), port: 80 }));
    assert!(!cluster.state().unbalanced);
    cluster.set_endpoints(&alike(&addrs(1)));
    assert!(cluster.state().unbalanced);
    cluster.set_endpoints(&alike(&["192.0.2.1:80".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap()]));
    assert!(cluster.state().unbalanced, "a cluster IP of each family");
    cluster.set_endpoints(&alike(&addrs(2)));
    assert!(!cluster.state().unbalanced);
    assert!(!self::cluster(1, |_| {}).state().unbalanced);
}

#[test]
fn weights_are_shares_and_alike_ones_are_none() {
    let shares = |weights: &[usize]| {
        let cluster = cluster(weights.len() as u16, |_| {});
        let all: Vec<_> = addrs(weights.len() as u16).into_iter().zip(weights.iter().copied()).collect();
        cluster.set_endpoints(&all);
        let mut random = fastrand::Rng::with_seed(5);
        let picks: Vec<_> = (0..10_000).map(|_| cluster.pick(&[], cluster.now(), &mut random).unwrap().addr).collect();
        all.iter().map(|(addr, _)| picks.iter().filter(|picked| *picked == addr).count()).collect::<Vec<_>>()
    };
    let found = shares(&[1, 9]);
    assert!((850..1150).contains(&found[0]), "{found:?}");
    let found = shares(&[10, 30, 60]);
    assert!((850..1150).contains(&found[0]) && (2800..3200).contains(&found[1]), "{found:?}");
    let found = shares(&[50, 50, 50]);
    assert!(found.iter().all(|n| (3100..3600).contains(n)), "{found:?}");
    let found = shares(&[0, 100]);
    assert!((1..300).contains(&found[0]), "{found:?}");
}

#[test]
fn a_service_that_is_configured_anew_keeps_what_is_known_of_its_endpoints() {
    let before = cluster(3, |_| {});
    let outliers = Outliers { consecutive: 1, ..Outliers::default() };
    before.endpoints.load().used[0].failed(Failed::Badly, false, before.now(), &outliers, || true);
    let after = cluster(3, |s| s.retry.attempts = 7);
    after.inherit(&before);
    let known = |cluster: &Cluster| -> Vec<_> {
        cluster.state().endpoints.iter().map(|e| (e.addr, e.state, e.failures)).collect()
    };
    assert_eq!(known(&before), known(&after));
    assert_eq!(known(&after)[0].1, "ejected");
    assert!(after.now().abs_diff(before.now()) < Duration::from_secs(1), "both count from the same moment");
}
