//! Which units a command is about.

use super::Context;
use super::failure::Failure;
use crate::api::Units;
use crate::engine::View;
use crate::unit::Name;

/// Names that are alike enough to be suggested (Jaro-Winkler).
const ALIKE: f64 = 0.75;

/// What patterns mean among the units that there are.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Each once, in the order of the patterns.
    pub(super) names: Vec<Name>,
    /// What to say of each pattern that means nothing.
    pub(super) missing: Vec<String>,
}

/// All units, and the text that said so.
pub(super) async fn list(context: &Context) -> Result<(Vec<View>, String), Failure> {
    let (units, text) = context.client.get::<Units>("/v1/units").await?;
    Ok((units.units, text))
}

/// Asks which units there are and says what is missing. An error if nothing is left to do.
pub(super) async fn expand(context: &Context, patterns: &[String]) -> Result<(Vec<Name>, bool), Failure> {
    let (views, _) = list(context).await?;
    let Selection { names, missing } = select(patterns, &views);
    if names.is_empty() {
        return Err(Failure::NoSuchUnit(missing.join("\n")));
    }
    missing.iter().for_each(|text| context.out.complain(text));
    Ok((names, !missing.is_empty()))
}

/// `all` whatever units are called, an instance's name, a unit's name (all its instances), or a glob.
pub(super) fn select(patterns: &[String], views: &[View]) -> Selection {
    let mut selection = Selection::default();
    for asked in patterns {
        let pattern = if asked == "all" { "*" } else { asked };
        let exact = |view: &&View| view.name.as_str() == pattern;
        let of_unit = |view: &&View| view.unit.as_str() == pattern;
        let alike = |view: &&View| glob(pattern, &view.name);
        let mut found: Vec<&View> = views.iter().filter(exact).collect();
        if found.is_empty() {
            found = views.iter().filter(of_unit).collect();
        }
        if found.is_empty() {
            found = views.iter().filter(alike).collect();
        }
        if found.is_empty() {
            selection.missing.push(missing(asked, views));
        }
        for view in found {
            if !selection.names.contains(&view.name) {
                selection.names.push(view.name.clone());
            }
        }
    }
    selection
}

fn missing(pattern: &str, views: &[View]) -> String {
    let nearest = views
        .iter()
        .map(|view| (strsim::jaro_winkler(pattern, &view.name), &view.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((_, name)) => format!("{pattern}: no such unit; did you mean {name}?"),
        None => format!("{pattern}: no such unit; `uphold ctl status` lists those that there are"),
    }
}

/// `*` is any text, `?` any one character; anything else is itself.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and from where on the text after what it took is tried.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    #[test]
    fn a_glob_takes_the_whole_name() {
        for (pattern, text, taken) in [
            ("*", "web", true),
            ("web@*", "web@1", true),
            ("web@*", "web", false),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*b*b", "abcb", true),
            ("*b*b", "abc", false),
            ("web", "web2", false),
            ("a*b*c", "aXbYbZc", true),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), taken, "{pattern} against {text}");
        }
    }

    #[test]
    fn patterns_mean_each_unit_once_and_a_typo_gets_a_suggestion() {
        let mut views = vec![view("db"), view("web@1"), view("web@2")];
        for web in &mut views[1..] {
            web.unit = Name::new("web").unwrap();
        }
        let of = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            let selection = select(&patterns, &views);
            let names: Vec<String> = selection.names.iter().map(ToString::to_string).collect();
            (names.join(" "), selection.missing.join("|"))
        };
        assert_eq!(of(&["web@2", "all"]), ("web@2 db web@1".to_owned(), String::new()));
        assert_eq!(of(&["web"]), ("web@1 web@2".to_owned(), String::new()));
        assert_eq!(of(&["web@*", "dbb"]).1, "dbb: no such unit; did you mean db?");
        assert_eq!(of(&["zzz*"]).1, "zzz*: no such unit; `uphold ctl status` lists those that there are");
        let views = [view("all"), view("db")];
        let names = select(&["all".to_owned()], &views).names;
        assert_eq!(names.len(), 2, "`all` is every unit also where one is called so");
    }
}
