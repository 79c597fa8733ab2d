use std::path::Path;

use super::*;

fn check(text: &str, expected: &str) {
    let parsed = FileConfig::parse(text, Path::new("")).map(|(_, jobs)| {
        let names: Vec<String> = jobs
            .iter()
            .map(|job| format!("{} {} {}", job.name, Span(job.interval), Span(job.timeout)))
            .collect();
        names.join("; ")
    });
    match &parsed {
        Ok(told) => assert_eq!(told, expected, "{text}"),
        Err(fault) => assert!(fault.contains(expected), "{fault}\n{text}"),
    }
}

#[test]
fn files_are_read_and_faults_have_a_place() {
    check("", "");
    check(
        "global: {scrape_interval: 15s}\nscrape_configs:\n- job_name: a\n- job_name: b\n  scrape_interval: 1m30s",
        "a 15s 10s; b 1m30s 10s",
    );
    check("scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n", "a 5s 5s");
    check("scrape_configs:\n- job_name: a\n  scrape_intervall: 5s\n", "line 3");
    check("rule_files: [a.yml]\n", "rule_files");
    check(
        "scrape_configs:\n- job_name: a\n- job_name: a\n",
        "line 3, column 3: there is a job \"a\" already",
    );
    check("scrape_configs:\n- job_name: a\n  scheme: ftp\n", "line 2, column 3: the scheme \"ftp\"");
    check("scrape_configs:\n- job_name: a\n  scrape_timeout: 2m\n", "scrape_timeout 2m is longer");
    check(
        "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: hashmod\n",
        "line 4, column 5: hashmod",
    );
    check("scrape_configs:\n- job_name: a\n  dns_sd_configs:\n  - {names: [x], type: A}\n", "needs a port");
    check("scrape_configs:\n- job_name: a\n  body_size_limit: 10XB\n", "is no size");
    check("remote_write:\n- url: here\n", "line 2, column 3: \"here\" is not a URL");
    check("remote_write:\n- {url: 'http://h/w', protobuf_message: v3}\n", "protobuf_message is");
}
