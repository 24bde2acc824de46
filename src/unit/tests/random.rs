//! Whatever a file holds.

use proptest::prelude::*;

use super::*;

/// Reads a text as a unit, shows everything, and prints it again.
fn whole_way(text: &str) {
    let place = Place::new();
    let file = place.write("web.toml", text);
    let sources = place.sources(&[]);
    let (set, problems) = check_files(&sources, std::slice::from_ref(&file));
    for problem in problems {
        let _ = problem.to_string();
    }
    let _ =
        config(&file, &sources.trust).map_err(|problems| problems.iter().for_each(|p| drop(p.to_string())));
    if let Some(loaded) = set.units.get(&name("web")) {
        let again = place.write("again/web.toml", &loaded.cat());
        let (again, problems) = check_files(&sources, &[again]);
        assert!(problems.iter().all(|problem| problem.severity == Severity::Warning), "{problems:?}");
        assert_eq!(again.units[&name("web")].unit, loaded.unit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*|[ -~\\n\\t\\r]*|[\\[\\]{}=.\"'#\\nà\\\\,0-9a-c]*") {
        whole_way(&text);
        let _ = envfile::parse(&text);
        let _ = quantity::duration(&text);
        let _ = quantity::size(&text);
        let _ = command::split(&text);
    }

    #[test]
    fn any_value_at_any_key_never_panics_and_what_loads_survives_cat(
        index in 0..200_usize,
        value in "(-?[0-9]{1,22}|[0-9]{1,3}\\.[0-9]e[0-9]{1,3}|nan|-inf|true|\"[a-z0-9{}:/.à-]{0,12}\"|'[a-zA-Z0-9 |$\"-]{0,9}'|\\[\\]|\\[1, 2\\]|\\[\"a\", \"b\"\\]|\\{\\}|\\{ a = 1 \\}|\\{ port = 80 \\}|1979-05-27)",
    ) {
        let all = schema::all(schema::UNIT);
        let (path, key) = &all[index % all.len()];
        whole_way(&format!("{} = {value}\n", schema::join(path, key.name)));
        let key = schema::join(path, key.name);
        if !key.starts_with("command") {
            whole_way(&format!("command = \"a\"\n{key} = {value}\n"));
        }
    }
}
