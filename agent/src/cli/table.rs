//! Aligned columns that fit the terminal.
use super::screen::{Screen, Tint};
use super::text;

/// Space between columns.
const GAP: usize = 2;
/// A column is not cut shorter than this.
const SHORTEST: usize = 8;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) title: &'static str,
    /// Numbers stand at the right.
    pub(crate) right: bool,
    /// May be cut when the terminal is too narrow.
    pub(crate) flexible: bool,
}

/// A heading and rows.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<(String, Tint)>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; the text is made harmless, empty text becomes a dash.
    pub(crate) fn row(&mut self, cells: &[(&str, Tint)]) {
        let cell = |(text, tint): &(&str, Tint)| match *text {
            "" => ("-".to_owned(), Tint::Dim),
            text => (text::clean(text).into_owned(), *tint),
        };
        self.rows.push(cells.iter().map(cell).collect());
    }

    /// The table as lines.
    pub(crate) fn lines(&self, screen: &Screen) -> Vec<String> {
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = self.rows.iter().filter_map(|r| r.get(i));
                cells
                    .map(|(text, _)| text.chars().count())
                    .chain([self.columns[i].title.len()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        if let Some(limit) = screen.width {
            self.shrink(&mut widths, limit);
        }
        let heading: Vec<(String, Tint)> = self
            .columns
            .iter()
            .map(|c| (c.title.to_owned(), Tint::Bold))
            .collect();
        [&heading]
            .into_iter()
            .chain(&self.rows)
            .map(|row| self.line(screen, row, &widths))
            .collect()
    }

    /// Takes columns from the widest flexible column until the table fits, as far as that goes.
    fn shrink(&self, widths: &mut [usize], limit: usize) {
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let widest = (0..widths.len())
                .filter(|i| self.columns[*i].flexible && widths[*i] > SHORTEST)
                .max_by_key(|i| widths[*i]);
            match widest {
                Some(i) => widths[i] -= 1,
                None => return,
            }
        }
    }

    fn line(&self, screen: &Screen, row: &[(String, Tint)], widths: &[usize]) -> String {
        let mut line = String::new();
        for (i, (text, tint)) in row.iter().enumerate() {
            let text = cut(text, widths[i]);
            let space = " ".repeat(widths[i] - text.chars().count());
            let painted = screen.paint(*tint, &text);
            if self.columns[i].right {
                line += &space;
                line += &painted;
            } else {
                line += &painted;
                line += &space;
            }
            line += &" ".repeat(GAP);
        }
        line.trim_end().to_owned()
    }
}

/// The text in at most `width` characters; the middle goes, since both ends of a host name tell something.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let keep = width.saturating_sub(1);
    let (head, tail) = (keep - keep / 2, keep / 2);
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{begin}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            title: "NAME",
            right: false,
            flexible: true,
        },
        Column {
            title: "N",
            right: true,
            flexible: false,
        },
        Column {
            title: "LAST",
            right: false,
            flexible: false,
        },
    ];

    fn screen(terminal: bool) -> Screen {
        Screen::of(
            Box::new(std::io::sink()),
            Box::new(std::io::sink()),
            terminal,
        )
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&COLUMNS);
        table.row(&[
            ("a.example", Tint::Plain),
            ("5", Tint::Plain),
            ("x", Tint::Good),
        ]);
        table.row(&[("b", Tint::Plain), ("1000", Tint::Plain), ("", Tint::Plain)]);
        assert_eq!(
            table.lines(&screen(false)),
            [
                "NAME          N  LAST",
                "a.example     5  x",
                "b          1000  -"
            ]
        );
    }

    #[test]
    fn long_names_are_cut_on_a_terminal_only() {
        let name = "a".repeat(200) + "\x1b[2J";
        let mut table = Table::new(&COLUMNS);
        table.row(&[(&name, Tint::Plain), ("5", Tint::Plain), ("x", Tint::Plain)]);
        let lines = table.lines(&screen(true));
        assert!(lines[1].chars().count() <= 80, "{}", lines[1]);
        assert!(lines[1].contains('…'));
        assert!(!lines[1].contains('\x1b'));
        assert!(table.lines(&screen(false))[1].starts_with(&"a".repeat(200)));
    }

    #[test]
    fn both_ends_stay() {
        assert_eq!(cut("customer-4711.example.com", 11), "custo…e.com");
        assert_eq!(cut("abc", 3), "abc");
    }
}
