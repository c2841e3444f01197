//! No sequence of calls gives an owner more than their budget.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::lend::{Demand, loans};
use super::model::{Account, Budget, BudgetChange, Kind, Split, WHOLE};
use crate::config::units::{Cpu, Percent, Unit as _};

fn split(kind: Kind, shares: &[(&str, &str)]) -> Split {
    let shares = shares
        .iter()
        .map(|(name, share)| ((*name).to_owned(), share.parse().unwrap()));
    Split {
        kind,
        shares: shares.collect(),
    }
}

fn with_cpu(cpu: &str) -> Account {
    let mut account = Account::default();
    BudgetChange::parse("cpu", cpu)
        .unwrap()
        .apply(&mut account.budget);
    account
}

#[test]
fn twenty_five_and_seventy_five() {
    let mut account = with_cpu("60%");
    let wanted = split(Kind::Hard, &[("a", "20%"), ("b", "5%"), ("c", "75%")]);
    account.check_split(&wanted).unwrap();
    account.split = Some(wanted);
    let quota = |site: &str, own| account.quota(own, account.part(site, 0), 1_000_000);
    assert_eq!(
        (quota("a", None), quota("b", None), quota("c", None)),
        (Some(1200), Some(300), Some(4500))
    );
    assert_eq!(quota("c", Some(2000)), Some(2000), "its own limit is lower");
    assert_eq!(
        quota("c", Some(9000)),
        Some(4500),
        "its own limit is higher"
    );
    assert_eq!(account.part("a", 0).unwrap().weight, 2000);
}

#[test]
fn lending_is_beside_the_part_and_within_the_budget() {
    let mut account = with_cpu("60%");
    account.split = Some(split(Kind::Lending, &[("a", "20%")]));
    let part = account.part("a", 0);
    assert_eq!(account.quota(None, part, 1000), Some(2200));
    assert_eq!(account.quota(None, part, 100_000), Some(6000));
    assert_eq!(account.quota(Some(1500), part, 1000), Some(1500));
}

#[test]
fn the_others_share_what_is_left() {
    let mut account = with_cpu("100%");
    account.split = Some(split(Kind::Hard, &[("a", "40%")]));
    assert_eq!(account.part("x", 1).unwrap().guarantee, 6000);
    assert_eq!(account.part("x", 3).unwrap().guarantee, 2000);
    account.split = Some(split(Kind::Hard, &[("a", "100%")]));
    assert_eq!(
        account.part("x", 1).unwrap().guarantee,
        100,
        "enough to end with"
    );
}

#[test]
fn what_cannot_be_divided_is_refused_with_the_arithmetic() {
    let none = Account::default();
    let why = none
        .check_split(&split(Kind::Hard, &[("a", "1%")]))
        .unwrap_err();
    assert!(why.contains("no CPU budget"), "{why}");
    let account = with_cpu("60%");
    let over = split(Kind::Lending, &[("a", "20%"), ("b", "5.5%"), ("c", "80%")]);
    let why = account.check_split(&over).unwrap_err();
    assert!(
        why.contains("20% + 5.5% + 80% = 105.5%") && why.contains("5.5% too much"),
        "{why}"
    );
    let why = account
        .check_split(&split(Kind::Hard, &[("a", "1%")]))
        .unwrap_err();
    assert!(why.contains("1% of 60% is 0.6%"), "{why}");
    assert!(
        with_cpu("max")
            .check_split(&split(Kind::Hard, &[("a", "1%")]))
            .is_err()
    );
}

#[test]
fn budgets_are_read_and_nonsense_is_refused() {
    let mut budget = Budget::default();
    for (key, value) in [
        ("cpu", "1.5"),
        ("memory", "2G"),
        ("io.read", "2MB/s"),
        ("io.write", "8Mbit/s"),
        ("io.read_iops", "200"),
        ("io.write_iops", "100"),
        ("sites", "20"),
        ("starts", "4"),
    ] {
        BudgetChange::parse(key, value).unwrap().apply(&mut budget);
    }
    let shown = budget.shown().map(|(_, value)| value.unwrap());
    assert_eq!(
        shown,
        ["150%", "2G", "2MB/s", "1MB/s", "200", "100", "20", "4"]
    );
    let kept = serde_json::to_string(&budget).unwrap();
    assert_eq!(serde_json::from_str::<Budget>(&kept).unwrap(), budget);
    BudgetChange::parse("memory", "")
        .unwrap()
        .apply(&mut budget);
    assert_eq!(budget.memory, None);
    for (key, value) in [
        ("cpu", "0%"),
        ("memory", "1"),
        ("sites", "0"),
        ("starts", "x"),
        ("disk", "1G"),
        ("io.read", "2M"),
        ("io.read_iops", "0"),
        ("io.weight", "100"),
        ("io", "2MB/s"),
        ("cpu", "-5%"),
    ] {
        assert!(BudgetChange::parse(key, value).is_err(), "{key}={value}");
    }
}

const SITES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What can happen to an owner.
#[derive(Debug, Clone)]
enum Call {
    /// By operators.
    Budget(Option<u64>),
    /// By the owner.
    Split(Kind, BTreeMap<String, Percent>),
    Set(usize, Option<u64>),
    Wake(usize),
    Remove(usize),
    /// What the sites want in the next moment.
    Lend(Vec<Option<u64>>),
}

fn call() -> impl Strategy<Value = Call> {
    let site = 0..SITES.len();
    let kind = prop_oneof![Just(Kind::Hard), Just(Kind::Lending)];
    let shares = prop::collection::btree_map(
        prop::sample::select(&SITES[..]).prop_map(str::to_owned),
        (0u64..=WHOLE).prop_map(Percent::from_raw),
        0..SITES.len(),
    );
    prop_oneof![
        prop::option::of(100u64..80_000).prop_map(Call::Budget),
        (kind, shares).prop_map(|(kind, shares)| Call::Split(kind, shares)),
        (site.clone(), prop::option::of(100u64..200_000))
            .prop_map(|(site, own)| Call::Set(site, own)),
        site.clone().prop_map(Call::Wake),
        site.prop_map(Call::Remove),
        prop::collection::vec(prop::option::of(0u64..90_000), SITES.len()).prop_map(Call::Lend),
    ]
}

proptest! {
    #[test]
    fn an_owner_never_exceeds_the_budget(calls in prop::collection::vec(call(), 0..40)) {
        let mut account = Account::default();
        // Awake sites: own limit and loan.
        let mut awake: BTreeMap<&str, (Option<u64>, u64)> = BTreeMap::new();
        for call in calls {
            let budget_before = account.budget;
            match call {
                Call::Budget(cpu) => {
                    account.budget.cpu = cpu.map(Cpu::from_raw);
                    awake.values_mut().for_each(|(_, lent)| *lent = 0);
                }
                Call::Split(kind, shares) => {
                    let split = Split { kind, shares };
                    let sum: u64 = split.shares.values().map(|s| s.permyriad()).sum();
                    if account.check_split(&split).is_ok() {
                        prop_assert!(sum <= WHOLE);
                        account.split = Some(split);
                        awake.values_mut().for_each(|(_, lent)| *lent = 0);
                    }
                    prop_assert_eq!(account.budget, budget_before, "the owner changed the budget");
                }
                Call::Set(site, own) => {
                    awake.entry(SITES[site]).and_modify(|(old, _)| *old = own);
                }
                Call::Wake(site) => {
                    awake.entry(SITES[site]).or_insert((None, 0));
                }
                Call::Remove(site) => {
                    awake.remove(SITES[site]);
                }
                Call::Lend(wants) => {
                    let unnamed = unnamed(&account, &awake);
                    let Some(budget) = account.cpu() else { continue };
                    let parts: Vec<_> = awake.keys().filter_map(|name| account.part(name, unnamed)).collect();
                    let demands: Vec<Demand> = parts
                        .iter()
                        .zip(awake.values())
                        .zip(wants)
                        .map(|((part, (own, _)), wants)| Demand {
                            guarantee: part.guarantee,
                            weight: part.weight,
                            most: own.unwrap_or(budget).min(budget),
                            wants,
                        })
                        .collect();
                    for ((_, lent), new) in awake.values_mut().zip(loans(budget, &demands)) {
                        *lent = new;
                    }
                }
            }
            let Some(budget) = account.cpu() else { continue };
            let unnamed = unnamed(&account, &awake);
            let mut sum = 0;
            let mut floors = 0;
            for (name, (own, lent)) in &awake {
                let part = account.part(name, unnamed);
                let quota = account.quota(*own, part, *lent);
                if let Some(quota) = quota {
                    prop_assert!(quota <= budget, "{name} has {quota} of {budget}");
                }
                if let Some(part) = part {
                    let quota = quota.unwrap();
                    prop_assert!(own.is_none_or(|own| quota <= own));
                    if part.kind == Kind::Hard {
                        prop_assert!(quota <= part.guarantee);
                    }
                    // Whose share is next to nothing has the least that a site can end with.
                    floors += if part.guarantee == 100 { 100 } else { 0 };
                    sum += part.guarantee;
                }
            }
            prop_assert!(sum <= budget + floors, "{sum} guaranteed of {budget}");
        }
    }
}

fn unnamed(account: &Account, awake: &BTreeMap<&str, (Option<u64>, u64)>) -> usize {
    let named = |name: &str| {
        account
            .split
            .as_ref()
            .is_some_and(|s| s.shares.contains_key(name))
    };
    awake.keys().filter(|name| !named(name)).count()
}
