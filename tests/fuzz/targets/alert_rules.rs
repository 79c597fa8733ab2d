//! Rule files, their unit tests, templates and Alertmanager's configuration: any text is read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Rules, and behind a line of hyphens their tests.
    let (rules, tests) = text.split_once("\n---\n").unwrap_or((text, text));
    let groups = belfry_ruler::parse_rules("fuzz", rules).unwrap_or_default();
    let _outcome = belfry_ruler::run_unit_tests(tests, &groups);
    if let Ok(config) = belfry_dispatch::Config::parse(text) {
        // What is shown is read again, but for addresses, which are not shown.
        let shown = config.shown.replace("url: <secret>", "url: http://x");
        assert!(belfry_dispatch::Config::parse(&shown).is_ok());
    }
    if let Ok(template) = belfry_ruler::Template::parse(text, &["$labels"]) {
        let labels = belfry_ruler::TemplateValue::texts([("a", "b")]);
        let context = belfry_ruler::Context {
            dot: labels.clone(),
            variables: vec![("$labels", labels)],
            external_url: String::new(),
        };
        let _outcome = template.expand(&context);
    }
    let _outcome = belfry_dispatch::parse_matchers(text);
});
