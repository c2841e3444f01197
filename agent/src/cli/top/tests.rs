//! `top` on a terminal of 80 columns and 24 lines, and none.
#![allow(clippy::unwrap_used)]
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{draw, page};
use super::model::{Model, Reading, Sort};
use super::pressed;
use crate::cli::testing::FakeAgent;
use crate::cli::tests::fastctl;

/// A second of two sites and of `more` that do nothing.
fn reading(second: u64, more: usize) -> Value {
    let mut vhosts = vec![
        json!({"vhost": "burner.example.com", "owner": "acme", "state": "running", "pid": 10, "limits": {"cpu": "100%", "memory": "256M"},
            "usage": {"cpu_seconds": 5.0 + second as f64 * 0.96, "memory_bytes": 64 << 20, "pids": 3, "io_write_bytes": 0}}),
        json!({"vhost": "a-writer-with-a-rather-long-name.example.org", "owner": "bob\u{1b}[2J", "state": "frozen", "pid": 11,
            "usage": {"cpu_seconds": 1.0, "memory_bytes": 100 << 20, "pids": 2, "io_read_bytes": 4096, "io_write_bytes": second * 3_145_728}}),
    ];
    for i in 0..more {
        vhosts.push(json!({"vhost": format!("s{i:03}.example.com"), "owner": "acme", "state": "running", "pid": 100 + i,
            "usage": {"cpu_seconds": 1.0, "memory_bytes": 1 << 20, "pids": 1}}));
    }
    json!({"vhosts": vhosts, "at_s": 100.0 + second as f64, "machine": {"cpus": 2, "load": [0.5, 0.4, 0.3],
        "memory": {"total_bytes": 4u64 << 30, "available_bytes": 3u64 << 30},
        "pressure": {"cpu": {"some": {"avg10": 1.5}}, "io": {"some": {"avg10": 45.0}}}}})
}

fn model(more: usize) -> Model {
    let mut model = Model::default();
    for second in [1, 2] {
        let reading: Reading = serde_json::from_value(reading(second, more)).unwrap();
        model.take(reading);
    }
    model
}

fn terminal(model: &Model, colour: bool, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, colour)).unwrap();
    terminal
}

fn lines(model: &Model) -> Vec<String> {
    let terminal = terminal(model, false, 80, 24);
    let buffer = terminal.backend().buffer();
    let cells = buffer.content.chunks(80);
    cells
        .map(|row| {
            let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            row.trim_end().to_owned()
        })
        .collect()
}

fn press(model: &mut Model, code: KeyCode) -> bool {
    pressed(model, KeyEvent::new(code, KeyModifiers::NONE), page(24))
}

#[test]
fn the_screen_fits_80_columns_and_24_lines() {
    let lines = lines(&model(0));
    assert_eq!(
        lines[..8],
        [
            "2 live sites   load 0.50 0.40 0.30   2 CPUs",
            "cpu     [||||||||||||            ] 48 % used by sites",
            "memory  [||||||                  ] 1G of 4G used, 3G available",
            "waiting for (10 s)  cpu 1.5 %  memory 0.0 %  storage 45.0 %",
            "",
            "VHOST              OWNER    STATE     CPU% OF LIMIT    MEM OF LIMIT   IO/s  PIDS",
            "burner.example.com acme     running   96.0 [||||||]    64M [||    ]     0B     3",
            "a-writer-with-a-ra bob\\x1b[ frozen     0.0    -       100M    -         3M     2",
        ]
    );
    assert_eq!(lines[23], super::draw::KEYS);
}

#[test]
fn no_colour_means_none() {
    for (colour, coloured) in [(false, false), (true, true)] {
        let terminal = terminal(&model(3), colour, 80, 24);
        let cells = &terminal.backend().buffer().content;
        assert_eq!(cells.iter().any(|c| c.fg != Color::Reset), coloured);
        assert!(cells.iter().all(|c| c.bg == Color::Reset));
    }
}

#[test]
fn any_size_can_be_painted() {
    for (width, height) in [(1, 1), (10, 3), (20, 6), (79, 7), (80, 24), (300, 100)] {
        terminal(&model(50), true, width, height);
        terminal(&Model::default(), true, width, height);
    }
}

#[test]
fn keys_sort_turn_and_scroll() {
    let mut model = model(40);
    let first = |model: &Model| lines(model)[6].split(' ').next().unwrap().to_owned();
    for (key, sort, want) in [
        ('m', Sort::Memory, "a-writer-with-a-ra"),
        ('c', Sort::Cpu, "burner.example.com"),
        ('i', Sort::Io, "a-writer-with-a-ra"),
        ('o', Sort::Owner, "burner.example.com"),
        ('n', Sort::Name, "a-writer-with-a-ra"),
    ] {
        assert!(!press(&mut model, KeyCode::Char(key)));
        assert_eq!((model.sort, first(&model).as_str()), (sort, want), "{key}");
    }
    press(&mut model, KeyCode::Char('n'));
    assert_eq!(first(&model), "s039.example.com");
    press(&mut model, KeyCode::Char('r'));
    press(&mut model, KeyCode::Down);
    assert_eq!(first(&model), "burner.example.com");
    press(&mut model, KeyCode::End);
    let end = lines(&model);
    assert!(end[22].starts_with("s039.example.com"), "{end:#?}");
    press(&mut model, KeyCode::Down);
    assert_eq!(lines(&model), end);
    press(&mut model, KeyCode::Home);
    press(&mut model, KeyCode::Char('x'));
    assert_eq!(first(&model), "a-writer-with-a-ra");
    assert!(press(&mut model, KeyCode::Char('q')) && press(&mut model, KeyCode::Esc));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(pressed(&mut model, interrupt, 10));
}

#[test]
fn owners_are_sums() {
    let mut model = model(3);
    press(&mut model, KeyCode::Char('t'));
    let shown = model.shown();
    assert_eq!(shown.len(), 2);
    let acme = &shown[0];
    assert_eq!(
        (acme.name.as_str(), acme.state.as_str(), acme.pids),
        ("acme", "4", 6)
    );
    assert_eq!(acme.memory, 67 << 20);
    assert!((acme.cpu - 96.0).abs() < 1e-6);
    // Three of them are not limited, so neither is the sum.
    assert_eq!((acme.cpu_limit, acme.memory_limit), (None, None));
    assert!((shown.iter().map(|l| l.cpu).sum::<f64>() - model.cpu()).abs() < 1e-6);
}

#[test]
fn another_container_or_agent_has_counters_of_its_own() {
    let mut model = model(0);
    let mut next = reading(3, 0);
    next["vhosts"][0]["pid"] = json!(99);
    next["vhosts"][0]["usage"]["cpu_seconds"] = json!(50.0);
    model.take(serde_json::from_value(next).unwrap());
    assert_eq!(model.cpu(), 0.0);
    let mut next = reading(4, 0);
    next["at_s"] = json!(0.5);
    model.take(serde_json::from_value(next).unwrap());
    assert_eq!(model.cpu(), 0.0);
}

#[test]
fn without_a_terminal_it_is_one_table() {
    let agent = FakeAgent::new(2, |n, request| {
        request.answer("200 OK", "", &reading(n as u64, 0).to_string());
    });
    let (code, out, err) = fastctl(&agent.socket, &["top"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out.lines().take(2).collect::<Vec<_>>(),
        [
            "VHOST                                         OWNER       STATE    CPU%  LIMIT   MEM  LIMIT  IO/s  PIDS",
            "burner.example.com                            acme        running  96.0   100%   64M   256M    0B     3",
        ]
    );
    let asked = agent.asked();
    assert_eq!(asked[0].line, format!("GET {}", super::PATH));
    assert!(
        !super::PATH.contains("stopped"),
        "sleeping sites cost nothing"
    );
}
