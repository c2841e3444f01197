//! No sequence of calls shows an owner anything of another's, changes it, or gets more than the budget: random calls of two
//! owners' uids and of operators to a real agent, each step checked. `FASTCONTAINER_SEED` repeats a sequence.

use std::collections::BTreeMap;

use harness::rounds;

use super::*;

mod calls;

use calls::Call;

const OTHER2: &str = "y.example.org";

/// One of both.
pub(super) struct Party {
    pub(super) name: &'static str,
    pub(super) uid: u32,
    pub(super) sites: &'static [&'static str],
}

pub(super) const PARTIES: [Party; 2] = [
    Party {
        name: "acme",
        uid: ACME,
        sites: &[A, B, C],
    },
    Party {
        name: "bolt",
        uid: BOLT,
        sites: &[OTHER, OTHER2],
    },
];

/// A stream of numbers that depends on its seed only.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A division as it must be.
type Shares = Option<(String, BTreeMap<String, u64>)>;

fn shares(view: &Value) -> Shares {
    let split = view["split"].as_object()?;
    let percent = |text: &Value| percent(text).unwrap() / 100;
    let all = split["shares"].as_object().unwrap().iter();
    let all = all.map(|(site, share)| (site.clone(), percent(share)));
    Some((split["kind"].as_str().unwrap().to_owned(), all.collect()))
}

/// `12.5%` as hundredths of a percent.
fn percent(text: &Value) -> Option<u64> {
    let text = text.as_str()?.trim_end_matches('%');
    let value: f64 = text.parse().unwrap();
    Some((value * 100.0).round() as u64)
}

/// Of an owner what must stay as it is while others act.
fn state(host: &Host, party: &Party) -> Value {
    let view = owner(host, party.name);
    let lends = view["split"]["kind"] == "lending";
    let site = |site: &&str| {
        let mut all = host.status(site);
        let mut limits = all["limits"].take();
        if lends {
            // Siblings lend it and take it back.
            limits["cpu"] = Value::Null;
        }
        let mut kept = json!({"limits": limits});
        for key in [
            "owner",
            "state",
            "wanted",
            "pid",
            "upstream",
            "temporary",
            "promised",
            "definition",
            "starts",
        ] {
            kept[key] = all[key].take();
        }
        for limit in ["left_s"] {
            for (_, one) in kept["temporary"].as_object_mut().into_iter().flatten() {
                one[limit] = Value::Null;
            }
        }
        kept
    };
    let sites: Vec<Value> = party.sites.iter().map(site).collect();
    json!({"budget": view["budget"], "split": view["split"], "in_force": view["in_force"], "sites": sites})
}

/// What must not be in an answer to anybody else: names, addresses and process ids.
fn marks(party: &Party, state: &Value) -> Vec<String> {
    let names = party.sites.iter().map(|site| (*site).to_owned());
    let mut all: Vec<String> = names.chain([party.name.to_owned()]).collect();
    for site in state["sites"].as_array().unwrap() {
        if let Some(upstream) = site["upstream"].as_str() {
            all.push(format!("{upstream:?}"));
        }
        if let Some(pid) = site["pid"].as_u64() {
            all.push(format!("\"pid\":{pid},"));
        }
    }
    all
}

/// What the kernel and the ledger say of an owner is within the budget.
fn check_budget(host: &Host, party: &Party) {
    let view = owner(host, party.name);
    let budget = percent(&view["budget"]["cpu"]).unwrap();
    let of = |group: &str| quota(host, group);
    let sites = view["sites"].as_array().unwrap();
    let awake: Vec<&str> = sites
        .iter()
        .filter(|site| site["awake"] == true)
        .map(|site| site["vhost"].as_str().unwrap())
        .collect();
    assert!(awake.len() as u64 <= view["budget"]["sites"].as_u64().unwrap());
    if !awake.is_empty() {
        assert_eq!(of(party.name), Some(budget), "{view}");
        let memory = file(host, party.name, ["memory.max", "memory.limit_in_bytes"]).unwrap();
        let megabytes = view["budget"]["memory"]
            .as_str()
            .unwrap()
            .trim_end_matches('M');
        assert_eq!(
            memory.trim().parse::<u64>().unwrap() >> 20,
            megabytes.parse::<u64>().unwrap()
        );
    }
    let quotas = awake
        .iter()
        .map(|site| of(&format!("{}/{site}", party.name)));
    let quotas: Vec<Option<u64>> = quotas.collect();
    assert!(
        quotas.iter().flatten().all(|quota| *quota <= budget),
        "{quotas:?} {view}"
    );
    if let Some((kind, shares)) = shares(&view)
        && kind == "hard"
    {
        let named = awake.iter().zip(&quotas);
        let named = named.filter(|(site, _)| shares.contains_key(**site));
        let sum: u64 = named.map(|(_, quota)| quota.unwrap()).sum();
        // Whose part has become smaller than the least there is has that.
        let least = 100 * shares.len() as u64;
        assert!(sum <= budget.max(least), "{quotas:?} {view}");
    }
    let promised = party.sites.iter().map(|site| {
        let status = host.status(site);
        percent(&status["promised"]["cpu"]).unwrap_or(0)
    });
    assert!(promised.sum::<u64>() <= budget, "{view}");
}

/// The CPU quota of a group in hundredths of a percent.
fn quota(host: &Host, group: &str) -> Option<u64> {
    let text = file(host, group, ["cpu.max", "cpu.cfs_quota_us"])?;
    let quota = text.split_whitespace().next()?.parse::<i64>().ok()?;
    u64::try_from(quota).ok().map(|usec| usec / 10)
}

/// Whether this division can be, of a budget in hundredths of a percent.
fn fits(party: &Party, shares: &BTreeMap<String, u64>, budget: u64) -> bool {
    shares.keys().all(|site| party.sites.contains(&&**site))
        && shares.values().sum::<u64>() <= 100
        && shares.values().all(|share| budget * share / 100 >= 100)
}

struct World {
    host: Host,
    random: Random,
    divisions: [Shares; 2],
}

impl World {
    /// A call by one of both: what comes back is theirs, and of the other nothing has changed.
    fn owner_acts(&mut self, me: usize) -> Call {
        let (party, other) = (&PARTIES[me], &PARTIES[1 - me]);
        let mut call = calls::of_owner(&mut self.random, party, other);
        let before = state(&self.host, other);
        let budget = percent(&owner(&self.host, party.name)["budget"]["cpu"]).unwrap();
        let answer = call.ask(&self.host, party.uid);
        call.status = answer.status;
        let mut text = String::from_utf8_lossy(&answer.body).into_owned();
        if call.foreign {
            assert_eq!(answer.status, 403, "{call:?}: {text}");
        }
        if call.operators {
            assert!([403, 404].contains(&answer.status), "{call:?}: {text}");
        }
        assert!(
            answer.status < 500 || answer.status == 503,
            "{call:?}: {text}"
        );
        // A refusal may repeat what it was asked about; it knows no more of it.
        if answer.status >= 400 {
            let asked = call.text();
            for name in other.sites.iter().chain([&other.name]) {
                if asked.contains(name) {
                    text = text.replace(name, "");
                }
            }
        }
        for mark in marks(other, &before) {
            assert!(!text.contains(&mark), "{call:?} answers {mark}: {text}");
        }
        assert_eq!(state(&self.host, other), before, "{call:?}");
        if let Some((kind, shares)) = &call.split {
            let old = self.divisions[me].as_ref().map(|(kind, _)| kind.clone());
            let accepted = !call.foreign && fits(party, shares, budget);
            assert_eq!(
                answer.status == 200,
                accepted,
                "{call:?} of {budget}: {text}"
            );
            if accepted && !call.dry_run {
                let kind = kind.clone().or(old).unwrap_or("lending".to_owned());
                self.divisions[me] = Some((kind, shares.clone())).filter(|_| !shares.is_empty());
            }
        }
        call
    }

    /// An operator changes what one owner's site or they all have.
    fn operator_acts(&mut self) -> Call {
        let of = self.random.below(2);
        let (party, other) = (&PARTIES[of], &PARTIES[1 - of]);
        let mut call = calls::of_operator(&mut self.random, party);
        let before = state(&self.host, other);
        let answer = call.ask(&self.host, 0);
        call.status = answer.status;
        assert!(
            [200, 400, 409, 503].contains(&answer.status),
            "{call:?}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        if call.path.contains("for=1s") {
            wait_for("its time is over", seconds(30), || {
                let sites = party.sites.iter();
                let mut left = sites.flat_map(|site| {
                    let temporary = self.host.status(site)["temporary"].clone();
                    let all = temporary.as_object().cloned().unwrap_or_default();
                    all.into_iter()
                        .map(|(_, one)| one["left_s"].as_f64().unwrap())
                });
                left.all(|left| left > 600.0)
            });
        }
        assert_eq!(state(&self.host, other), before, "{call:?}");
        call
    }
}

#[test]
fn no_sequence_of_calls_reaches_another_owner_or_exceeds_the_budget() {
    let seed = std::env::var("FASTCONTAINER_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seed: u64 = seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_millis() as u64 | 1
    });
    println!("FASTCONTAINER_SEED={seed}");
    let host = host();
    for party in &PARTIES {
        for site in party.sites {
            define(&host, site, party.name, harness::STATIC);
        }
        let sites = format!("sites={}", party.sites.len());
        ctl(
            &host,
            &[
                "owner",
                "budget",
                party.name,
                "cpu=60%",
                "memory=512M",
                &sites,
            ],
        );
    }
    for site in [A, OTHER] {
        assert_eq!(host.dispatch(site).status, 200);
    }
    let mut world = World {
        host,
        random: Random(seed),
        divisions: [None, None],
    };
    for step in 0..rounds(150, 30) {
        let who = world.random.below(10);
        let call = match who {
            0..4 => world.owner_acts(0),
            4..8 => world.owner_acts(1),
            _ => world.operator_acts(),
        };
        println!("{step}: {call:?}");
        for (party, division) in PARTIES.iter().zip(&world.divisions) {
            let view = owner(&world.host, party.name);
            assert_eq!(&shares(&view), division, "{call:?}");
            check_budget(&world.host, party);
        }
    }
    // What was done is there for the next agent.
    let before = PARTIES
        .each_ref()
        .map(|party| state(&world.host, party)["split"].clone());
    world.host.crash_and_restart();
    let after = PARTIES
        .each_ref()
        .map(|party| state(&world.host, party)["split"].clone());
    assert_eq!(before, after);
    world.host.finish();
}
