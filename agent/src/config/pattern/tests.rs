#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> HostPattern {
    text.parse().unwrap()
}

fn path(text: &str) -> PathPattern {
    text.parse().unwrap()
}

#[test]
fn matches_label_by_label() {
    for (text, host, expected) in [
        ("*.example.net", "a.example.net", true),
        ("*.example.net", "example.net", false),
        ("*.example.net", "a.b.example.net", false),
        ("*.example.net", "a.example.org", false),
        ("**.example.net", "a.b.example.net", true),
        ("**.example.net", "a.example.net", true),
        ("**.example.net", "example.net", false),
        ("a.*.net", "a.x.net", true),
        ("*", "localhost", true),
        ("**", "a.b.c", true),
        ("**", "../x", false),
        ("*.example.net", "..example.net", false),
        ("*.EXAMPLE.net", "a.example.net", true),
    ] {
        assert_eq!(pattern(text).matches(host), expected, "{text} {host}");
    }
    for (bad, why) in [
        ("example.net", "no *"),
        ("www-*.net", "whole label"),
        ("a.**.net", "first label"),
        ("", "empty"),
        ("*..net", "empty"),
    ] {
        let error = bad.parse::<HostPattern>().unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn expands_placeholders() {
    for (text, expected) in [
        ("/srv/www/%h", "/srv/www/a.b.example.net"),
        ("/srv/%2/%1", "/srv/b/a"),
        ("/srv/100%%/%h/htdocs", "/srv/100%/a.b.example.net/htdocs"),
        ("/srv/%1%2", "/srv/ab"),
    ] {
        assert_eq!(
            path(text).expand("a.b.example.net"),
            Some(expected.into()),
            "{text}"
        );
    }
    assert_eq!(path("/srv/%5").expand("a.b.example.net"), None);
    assert_eq!(path("/srv/%h").expand("../etc"), None);
    for bad in ["srv/%h", "/srv/%x", "/srv/%", "/srv/../%h", "/srv/%0"] {
        assert!(
            bad.parse::<PathPattern>()
                .unwrap_err()
                .contains("/srv/www/%h"),
            "{bad}"
        );
    }
}

#[test]
fn several_hosts_never_share_a_directory() {
    for (hosts, documents, good) in [
        ("*.example.net", "/srv/%h", true),
        ("*.example.net", "/srv/%1", true),
        ("*.example.net", "/srv/%2", false),
        ("*.example.net", "/srv/all", false),
        ("**.example.net", "/srv/%1", false),
        ("**.example.net", "/srv/%h", true),
        ("*.*.net", "/srv/%2/%1", true),
        ("*.*.net", "/srv/%1", false),
    ] {
        assert_eq!(
            check(&pattern(hosts), &path(documents)).is_ok(),
            good,
            "{hosts} {documents}"
        );
    }
}

#[test]
fn finds_hosts_by_their_directories() {
    for (hosts, documents, entry, expected) in [
        (
            "*.example.net",
            "/srv/www/%h",
            "a.example.net",
            Some("a.example.net"),
        ),
        ("*.example.net", "/srv/www/%h", "a.example.org", None),
        (
            "*.example.net",
            "/srv/www/%1",
            "shop",
            Some("shop.example.net"),
        ),
        (
            "*.example.net",
            "/srv/www/site-%1.d",
            "site-shop.d",
            Some("shop.example.net"),
        ),
        ("*.example.net", "/srv/www/site-%1.d", "shop.d", None),
        ("*.example.net", "/srv/www/%1", "a.b", None),
        ("*.example.net", "/srv/www/%1", ".hidden", None),
        ("*.example.net", "/srv/www/%1", "Shop", None),
        ("*.example.net", "/srv/%h/htdocs", "a.example.net", None),
    ] {
        let found = host_of_entry(&pattern(hosts), &path(documents), entry);
        assert_eq!(found.as_deref(), expected, "{hosts} {documents} {entry}");
    }
    assert_eq!(listed_in(&path("/srv/www/%h")), Some("/srv/www".into()));
    assert_eq!(listed_in(&path("/%h")), Some("/".into()));
    assert_eq!(listed_in(&path("/srv/%h/htdocs")), None);
}

proptest! {
    #[test]
    fn never_leaves_its_directory(host in "[a-z0-9./%*\\-\\PC]{0,30}", template in "/srv/(%h|%1|%2%1)(/x%%)?") {
        if let Some(expanded) = path(&template).expand(&host) {
            prop_assert!(expanded.starts_with("/srv") && expanded.components().all(|part| part.as_os_str() != ".."));
            prop_assert_eq!(expanded.components().count(), path(&template).to_string().split('/').count());
        }
    }

    #[test]
    fn round_trips(hosts in "(\\*\\*\\.|\\*\\.)?[a-z]{1,5}(\\.\\*)?", documents in "/[a-z%h0-9/.]{0,20}") {
        if let Ok(parsed) = hosts.parse::<HostPattern>() {
            prop_assert_eq!(parsed.to_string(), hosts);
        }
        if let Ok(parsed) = documents.parse::<PathPattern>() {
            prop_assert_eq!(parsed.to_string().parse::<PathPattern>(), Ok(parsed));
        }
    }

    #[test]
    fn a_listed_host_leads_back_to_its_entry(label in "[a-zA-Z0-9.-]{1,8}") {
        for documents in ["/srv/%h", "/srv/%1", "/srv/x%1y"] {
            if let Some(host) = host_of_entry(&pattern("*.example.net"), &path(documents), &label) {
                let directory = path(documents).expand(&host).unwrap();
                prop_assert_eq!(directory.file_name().unwrap(), label.as_str());
            }
        }
    }
}
