#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::*;
use super::FULL;

#[test]
fn changes_limits_by_key() {
    let definition = Definition::from_toml(FULL).unwrap();
    let patch = LimitPatch::parse([
        "cpu=50%",
        "memory=default",
        "write=max",
        "io.read_iops=7",
        "cpu-weight=200",
    ])
    .unwrap();
    let limits = definition.limits.patched(&patch);
    assert_eq!(
        limits.to_string(),
        "cpu=50% cpu_weight=200 pids=128 io.read=2MB/s io.write=max io.read_iops=7 io.write_iops=200 io.weight=100 \
         egress=10Mbit/s disk=5G"
    );
    let changed: Vec<String> = Limits::diff(&definition.limits, &limits)
        .into_iter()
        .map(|(key, ..)| key.to_string())
        .collect();
    assert_eq!(
        changed,
        ["cpu", "cpu_weight", "memory", "io.write", "io.read_iops"]
    );
    let json = r#"{"cpu": "50%", "memory": null, "io": {"write": "max"}, "io.read_iops": 7, "cpu_weight": 200}"#;
    assert_eq!(
        definition
            .limits
            .patched(&serde_json::from_str(json).unwrap()),
        limits
    );
    for (bad, expected) in [
        ("cpu", "write key=value"),
        ("cpuu=1", "did you mean `cpu`?"),
        ("weight=1", "unknown limit `weight`"),
        ("memory=lots", "memory: \"lots\" is not a size"),
        ("=", "unknown limit ``"),
    ] {
        let error = LimitPatch::parse([bad]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// Any set of limits.
fn any_limits() -> impl Strategy<Value = Limits> {
    proptest::collection::vec((0..LimitKey::ALL.len(), 1u64..10_000), 0..8).prop_map(|all| {
        let mut limits = Limits::default();
        for (key, value) in all {
            let key = LimitKey::ALL[key];
            // 7 is no valid CPU share; whatever the key does not take is left out.
            if let Ok(raw) = key.parse(&value.to_string()) {
                limits.set(key, Some(raw));
            }
        }
        limits
    })
}

proptest! {
    #[test]
    fn limits_round_trip_and_overlay(a in any_limits(), b in any_limits()) {
        let toml = toml::to_string(&a).unwrap();
        prop_assert_eq!(&toml::from_str::<Limits>(&toml).unwrap(), &a);
        prop_assert_eq!(&serde_json::from_str::<Limits>(&serde_json::to_string(&a).unwrap()).unwrap(), &a);
        let words = b.to_string();
        let patch = LimitPatch::parse(words.split_whitespace()).unwrap();
        prop_assert_eq!(a.patched(&patch), a.merge(&b));
        let json = serde_json::to_string(&patch).unwrap();
        prop_assert_eq!(&serde_json::from_str::<LimitPatch>(&json).unwrap(), &patch);
        // What differs, laid over the old, is the new.
        let difference = LimitPatch(Limits::diff(&a, &b).into_iter().map(|(key, _, new)| (key, new)).collect());
        prop_assert_eq!(a.patched(&difference), b);
    }
}
