//! A small live screen: level, languages as bars, text so far; what is final scrolls above.

use super::super::failure::AnyError;
use super::lines::{TOP, describe, notice, printable, summary};
use super::session::{Display, Notice, Source, Status, Summary};
use crate::decode::LiveSegment;
use crate::text::is_unspaced;
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Steps of a bar.
const STEPS: u64 = 100;
/// Decibels below which the level meter is empty.
const QUIETEST_DB: f64 = -60.0;
/// The screen of a terminal.
pub(super) struct Screen {
    screen: MultiProgress,
    level: ProgressBar,
    languages: Vec<ProgressBar>,
    text: ProgressBar,
    state: ProgressBar,
    terminal: Term,
    with_text: bool,
}

impl Screen {
    pub(super) fn new(with_text: bool) -> Self {
        Self::on(ProgressDrawTarget::stdout(), with_text)
    }

    fn on(target: ProgressDrawTarget, with_text: bool) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        let add = |template: &str| {
            let style = ProgressStyle::with_template(template).expect("the template is sound");
            let style = style.progress_chars("━━ ");
            screen.add(ProgressBar::new(STEPS).with_style(style))
        };
        // Narrow enough for any terminal; what does not fit of a message is left out.
        let level = add("level {bar:20.green} {wide_msg}");
        let languages = (0..TOP).map(|_| add("{prefix:5} {bar:20.cyan} {wide_msg}")).collect();
        let (text, state) = (add("{wide_msg}"), add("{wide_msg:.dim}"));
        let terminal = Term::stdout();
        Self { screen, level, languages, text, state, terminal, with_text }
    }

    /// Columns of the terminal.
    fn columns(&self) -> usize {
        usize::from(self.terminal.size().1)
    }
}

/// What was said, on a line.
fn said(segment: &LiveSegment, with_text: bool) -> String {
    let language = segment.understood.languages.first().map_or_else(
        || "-".to_owned(),
        |language| format!("{} {:.2}", language.code, language.score),
    );
    let text = if with_text { printable(&segment.understood.text) } else { String::new() };
    let line = format!("{:.1}-{:.1} s [{language}] {text}", segment.start_s, segment.end_s);
    line.trim_end().to_owned()
}

/// Where the level meter stands, in steps.
fn level_steps(level_db: f64) -> u64 {
    let share = (1.0 - level_db / QUIETEST_DB).clamp(0.0, 1.0);
    (share * STEPS as f64) as u64
}

/// The end of a text that fits into so many columns, as terminals count them.
fn tail(text: &str, columns: usize) -> String {
    let mut left = columns;
    let mut kept: Vec<char> = Vec::new();
    for c in printable(text).chars().rev() {
        let width = if is_unspaced(c) { 2 } else { 1 };
        if left < width {
            break;
        }
        left -= width;
        kept.push(c);
    }
    kept.into_iter().rev().collect()
}

impl Display for Screen {
    fn start(&mut self, source: &Source) -> Result<(), AnyError> {
        self.screen.println(format!("listening to {}; Ctrl-C ends", describe(source)))?;
        Ok(())
    }

    fn segment(&mut self, segment: &LiveSegment, _latency_s: f64) -> Result<(), AnyError> {
        let understood = &segment.understood;
        for (i, bar) in self.languages.iter().enumerate() {
            let Some(language) = understood.languages.get(i) else {
                bar.set_prefix("");
                bar.set_message("");
                bar.set_position(0);
                continue;
            };
            bar.set_prefix(language.code.to_string());
            bar.set_position((language.score * STEPS as f64).round() as u64);
            let name = language.code.name().unwrap_or_default();
            let place = understood.location.filter(|_| i == 0).map_or_else(String::new, |place| {
                format!(", at {:.1} {:.1}", place.latitude, place.longitude)
            });
            bar.set_message(format!("{:.2} {name}{place}", language.score));
        }
        if segment.is_final {
            self.text.set_message("");
            if !understood.languages.is_empty() || !understood.text.is_empty() {
                self.screen.println(said(segment, self.with_text))?;
            }
        } else if self.with_text {
            self.text.set_message(tail(&understood.text, self.columns()));
        }
        Ok(())
    }

    fn notice(&mut self, at_s: f64, what: Notice) -> Result<(), AnyError> {
        self.screen.println(format!("warning: at {at_s:.1} s: {}", notice(what)))?;
        Ok(())
    }

    fn status(&mut self, status: &Status) {
        self.level.set_position(level_steps(status.level_db));
        self.level.set_message(format!("{:5.0} dB", status.level_db.max(QUIETEST_DB)));
        let overruns = match status.counts.overruns {
            0 => String::new(),
            n => format!("  {n} overruns"),
        };
        let state = format!(
            "{:.0} s  {}  {:.2} s late  {} dropped{overruns}",
            status.heard_s,
            if status.is_speaking { "speech" } else { "silence" },
            status.latency_s,
            status.counts.dropped,
        );
        // The terminal writes `^C` behind it, which must not begin a line of its own.
        let columns = self.columns().saturating_sub(3);
        self.state.set_message(state.chars().take(columns).collect::<String>());
    }

    fn end(&mut self, all: &Summary) -> Result<(), AnyError> {
        self.screen.clear()?;
        eprintln!("{}", summary(all));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::line;
    use super::*;
    use crate::decode::{ScoredLanguage, SegmentText};

    #[test]
    fn the_screen_shows_level_languages_text_and_state() {
        let mut screen = Screen::on(ProgressDrawTarget::hidden(), true);
        let language =
            |code: &str, score| ScoredLanguage { code: code.parse().expect("a code"), score };
        let mut segment = LiveSegment {
            start_s: 0.0,
            end_s: 1.5,
            voice_start_s: 0.5,
            is_final: false,
            understood: SegmentText {
                text: "guten mor".to_owned(),
                languages: vec![language("deu", 0.75), language("nld", 0.25)],
                ..SegmentText::default()
            },
        };
        screen.segment(&segment, 0.1).expect("shown");
        screen.status(&Status { level_db: -30.0, heard_s: 1.5, ..Status::default() });
        assert_eq!((screen.level.position(), screen.level.message()), (50, "  -30 dB".into()));
        let shown: Vec<(String, u64, String)> =
            screen.languages.iter().map(|b| (b.prefix(), b.position(), b.message())).collect();
        assert_eq!(shown[0], ("deu".into(), 75, "0.75 German".into()));
        assert_eq!(shown[1].0, "nld");
        assert_eq!(shown[2], (String::new(), 0, String::new()));
        assert_eq!(screen.text.message(), "guten mor");
        assert_eq!(screen.state.message(), "2 s  silence  0.00 s late  0 dropped");
        segment.is_final = true;
        segment.understood.text = "guten\u{7} morgen".to_owned();
        screen.segment(&segment, 0.1).expect("shown");
        assert_eq!(screen.text.message(), "");
        assert_eq!(said(&segment, true), "0.0-1.5 s [deu 0.75] guten morgen");
        assert_eq!(said(&segment, false), "0.0-1.5 s [deu 0.75]");
        let plain = line(&segment, true);
        assert_eq!(plain, "0.00 1.50 final [deu 0.75, nld 0.25] guten morgen");
        assert_eq!(line(&segment, false), "0.00 1.50 final [deu 0.75, nld 0.25]");
    }

    #[test]
    fn meters_stay_inside_and_text_is_cut_at_its_beginning() {
        let steps = [f64::NEG_INFINITY, -60.0, -30.0, 0.0, 9.0].map(level_steps);
        assert_eq!(steps, [0, 0, 50, 100, 100]);
        assert_eq!(tail("ab\u{1b}cde", 3), "cde");
        assert_eq!(tail("a東京", 4), "東京");
    }
}
