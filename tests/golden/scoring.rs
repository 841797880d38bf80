//! ML-SUPERB scores against the published scorers, SUPERB_s against its script.

use std::path::Path;

use asr::text::{
    MlSuperb2Report, MlSuperbGroup, Scheme, ScoreReport, SuperbResults, Variant, count_words,
    edit_counts, normalise_ml_superb, score, superb_score,
};
use serde_json::Value;

const TOLERANCE: f64 = 1e-9;

fn read(file: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mlsuperb-scoring").join(file);
    std::fs::read_to_string(path).expect("golden file is in the repository")
}

fn expected() -> Value {
    serde_json::from_str(&read("expected.json")).expect("golden file is valid")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn assert_close(name: &str, got: f64, want: f64) {
    assert!(
        (got - want).abs() <= TOLERANCE + TOLERANCE * want.abs(),
        "{name}: got {got}, want {want}"
    );
}

/// Percent to one decimal, as published.
fn published(fraction: f64) -> f64 {
    (fraction * 1000.0).round() / 10.0
}

fn ml_superb2(reference: &str, hypothesis: &str, variant: Variant) -> MlSuperb2Report {
    match score(reference, hypothesis, Scheme::MlSuperb2, variant).expect("valid transcripts") {
        ScoreReport::MlSuperb2(report) => report,
        other => panic!("another scheme: {other:?}"),
    }
}

/// Every language of `want` and no other has this score.
fn assert_languages(
    name: &str,
    report: &MlSuperb2Report,
    want: &Value,
    pick: fn(&asr::text::MlSuperb2Language) -> f64,
) {
    let want = want.as_object().expect("an object");
    assert_eq!(report.per_language.len(), want.len(), "{name}: languages");
    for (language, want) in want {
        assert_close(
            &format!("{name} {language}"),
            pick(&report.per_language[language]),
            number(want),
        );
    }
}

fn assert_summary(name: &str, report: &MlSuperb2Report, want: &Value) {
    let got = |key: &str| match key {
        "CER" => report.cer,
        "LID" => report.lid_accuracy,
        "StD" => report.std_cer.expect("several languages"),
        "Worst15" => report.worst15_cer,
        other => panic!("no score `{other}`"),
    };
    for (key, want) in want.as_object().expect("an object") {
        assert_close(&format!("{name} {key}"), published(got(key)), number(want));
    }
}

#[test]
fn ml_superb2_agrees_with_recipe_and_server() {
    let expected = expected();
    for (variant, key) in [(Variant::Recipe, "v2_recipe"), (Variant::Server, "v2_server_per_spec")]
    {
        let want = &expected[key];
        let report = ml_superb2(&read("dev.ref.txt"), &read("dev.hyp.txt"), variant);
        assert_languages(key, &report, &want["per_language_cer"], |language| language.cer);
        assert_languages(key, &report, &want["per_language_lid"], |language| language.lid_accuracy);
        assert_summary(key, &report, &want["summary"]);
        assert_eq!(report.skipped, ["cv_eng_900000"]);

        let dialect =
            ml_superb2(&read("dev_dialect.ref.txt"), &read("dev_dialect.hyp.txt"), variant);
        assert_summary(&format!("{key} dialect"), &dialect, &want["dialect"]);
        if let Some(per_language) = want.get("per_language_dialect_cer") {
            assert_languages(&format!("{key} dialect"), &dialect, per_language, |language| {
                language.cer
            });
        }
    }
}

#[test]
fn ml_superb2_has_the_scores_of_the_worked_example() {
    let want = &expected()["v2_worked_example"];
    let lines = |key: &str| -> String {
        let texts = want[key].as_array().expect("a list");
        texts.iter().enumerate().map(|(n, body)| format!("utt{n} {}\n", text(body))).collect()
    };
    let report = ml_superb2(&lines("refs"), &lines("hyps"), Variant::Recipe);
    assert_languages("worked", &report, &want["per_language_cer"], |language| language.cer);
    assert_languages("worked", &report, &want["per_language_lid"], |language| {
        language.lid_accuracy
    });
    assert_summary("worked", &report, &want["summary"]);
}

fn assert_group(name: &str, got: Option<&MlSuperbGroup>, want: &Value) {
    let got = got.expect("the group has utterances");
    let count = |key: &str| want[key].as_u64().expect("a count") as usize;
    assert_eq!(got.utterances, count("utterances"), "{name}");
    assert_eq!(got.reference_tokens, count("ref_tokens"), "{name}");
    assert_eq!(got.errors, count("edits_levenshtein"), "{name}");
    assert_eq!(got.lid_correct, count("lid_correct"), "{name}");
    assert_close(name, 100.0 * got.cer.expect("not empty"), number(&want["cer_percent"]));
    let accuracy = 100.0 * got.lid_accuracy.expect("tagged");
    assert_close(name, (accuracy * 100.0).round() / 100.0, number(&want["lid_accuracy_percent"]));
}

#[test]
fn ml_superb_agrees_with_the_first_recipe() {
    let report =
        score(&read("dev.ref.txt"), &read("dev.hyp.txt"), Scheme::MlSuperb, Variant::Recipe)
            .expect("valid");
    let ScoreReport::MlSuperb(report) = report else { panic!("another scheme: {report:?}") };
    let want = &expected()["v1"];
    assert_group("trained", report.trained.as_ref(), &want["trained"]);
    assert_group("reserved", report.reserved.as_ref(), &want["reserved"]);
}

#[test]
fn ml_superb_prepares_text_like_the_first_recipe() {
    for case in expected()["v1_normalise"].as_array().expect("a list") {
        assert_eq!(normalise_ml_superb(text(&case["text"]), true), text(&case["multilingual"]));
        assert_eq!(normalise_ml_superb(text(&case["text"]), false), text(&case["monolingual"]));
    }
}

#[test]
fn phone_errors_and_the_smallest_edits() {
    let expected = expected();
    let phones = &expected["v1_phone"];
    let pairs = phones["refs"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(phones["hyps"].as_array().expect("a list"));
    let counts =
        pairs.map(|(reference, hypothesis)| count_words(text(reference), text(hypothesis)));
    let total: asr::text::EditCounts = counts.sum();
    assert_eq!(total.errors() as u64, phones["edits"].as_u64().expect("a count"));
    assert_eq!(total.reference as u64, phones["ref_tokens"].as_u64().expect("a count"));
    assert_close(
        "phones",
        100.0 * total.rate().expect("not empty"),
        number(&phones["per_percent"]),
    );

    let sclite = &expected["sclite_difference"];
    let words = |key: &str| text(&sclite[key]).split(' ').map(str::to_owned).collect::<Vec<_>>();
    let errors = edit_counts(&words("ref"), &words("hyp")).errors();
    assert_eq!(errors as u64, sclite["levenshtein"].as_u64().expect("a count"));
}

#[test]
fn superb_scores_agree_with_the_published_script() {
    let expected = expected();
    let mut n_compared = 0;
    for (budget, index) in [("10min", 0), ("1h", 1)] {
        let row = |model: &str| {
            let cells = text(&expected["superb_rows"][model]).split(' ');
            let column = cells.map(|cell| {
                cell.split('/').nth(index).expect("two budgets").parse().expect("a number")
            });
            SuperbResults::from_columns(
                column.collect::<Vec<f64>>().try_into().expect("seven columns"),
            )
        };
        for (pool_name, pool) in expected["superb"].as_object().expect("an object") {
            let models: Vec<&str> =
                pool["models"].as_array().expect("a list").iter().map(text).collect();
            let results: Vec<SuperbResults> = models.iter().map(|model| row(model)).collect();
            for (model, results_of_model) in models.iter().zip(&results) {
                let got = superb_score(results_of_model, &row("FBANK"), &results)
                    .expect("FBANK is not the best");
                assert_close(
                    &format!("{pool_name} {budget} {model}"),
                    got,
                    number(&pool["scores"][budget][*model]),
                );
                n_compared += 1;
            }
        }
    }
    assert_eq!(n_compared, 40);
}
