//! The table's CPU rows as a picture: a group of bars for each workload, a bar for each proxy.

use std::fmt::Write;

use crate::peers::Kind;
use crate::table::Table;

const LABEL: f64 = 90.0;
const BARS: f64 = 560.0;
const VALUE: f64 = 90.0;
const BAR: f64 = 16.0;
const STEP: f64 = 20.0;
const HEADING: f64 = 30.0;
const MARGIN: f64 = 16.0;

/// Readable on white and on black.
const TEXT: &str = "#7d8590";
const OURS: &str = "#1f6feb";
const THEIRS: &str = "#a0a8b3";

/// Draws the rows that tell of CPU time. Bars have one scale within a group, not between groups.
pub(crate) fn draw(table: &Table) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for (name, cells) in table.rows() {
        let Some((workload, unit)) = name.split_once(", CPU ") else { continue };
        let most = cells.iter().map(|(_, cell)| cell.median()).fold(f64::MIN_POSITIVE, f64::max);
        text(&mut body, MARGIN, y + 14.0, "start", "600", &format!("{workload}: CPU {unit}"));
        y += HEADING;
        for (kind, version) in table.columns() {
            let Some((_, cell)) = cells.iter().find(|(other, _)| other == kind) else { continue };
            let width = cell.median() / most * BARS;
            let fill = if *kind == Kind::Outrigger { OURS } else { THEIRS };
            text(&mut body, MARGIN + LABEL - 6.0, y + 12.5, "end", "400", &kind.to_string());
            let _ = write!(
                body,
                r#"<rect x="{:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2" fill="{fill}"><title>{}</title></rect>"#,
                MARGIN + LABEL,
                escaped(&format!("{kind} {version}: {cell} {unit}"))
            );
            body.push('\n');
            let median = cell.median();
            let digits = usize::from(median < 100.0);
            text(&mut body, MARGIN + LABEL + width + 6.0, y + 12.5, "start", "400", &format!("{median:.digits$}"));
            y += STEP;
        }
        y += MARGIN;
    }
    let width = MARGIN + LABEL + BARS + VALUE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {y:.0}\" width=\"{width:.0}\" height=\"{y:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n{body}</svg>\n"
    )
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}" fill="{TEXT}">{}</text>"#,
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Cell;

    #[test]
    fn the_longest_bar_is_as_long_as_there_is_room_and_others_in_proportion() {
        let mut table = Table::new(vec![(Kind::Outrigger, "1".into()), (Kind::Envoy, "<2>".into())]);
        table.row("A, CPU us/request", vec![(Kind::Outrigger, Cell::of([10.0])), (Kind::Envoy, Cell::of([40.0]))]);
        table.row("A, requests/s", vec![(Kind::Outrigger, Cell::of([9.0]))]);
        let svg = draw(&table);
        assert!(svg.contains(r##"width="140.0" height="16" rx="2" fill="#1f6feb""##), "{svg}");
        assert!(svg.contains(r#"width="560.0""#) && svg.contains("envoy &lt;2&gt;: 40.0 us/request"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
