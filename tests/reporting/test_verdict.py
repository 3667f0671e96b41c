"""A run's verdict in words."""

from crysgnn_jax.reporting.verdict import against, verdict

GOOD = {
    "task": "student",
    "property": "band_gap",
    "unit": "eV",
    "n_train": 1200,
    "n_test": 150,
    "test_mae": 0.25,
    "test_mae_of_mean": 1.0,
    "epochs": 10,
    "best_epoch": 8,
    "steps": 400,
}


def test_a_good_run_is_told_in_one_sentence():
    assert verdict(GOOD, []) == [
        "The band gap of 150 test crystals is predicted with a mean absolute error of 0.250 eV, "
        "75 % lower than 1.00 eV, that of always predicting the mean of the training crystals."
    ]


def test_a_run_that_loses_to_composition_is_warned_of():
    (_, warning) = verdict({**GOOD, "test_mae_of_composition": 0.2}, [])
    assert warning.startswith("It is no better than what composition alone tells, 0.200 eV (ridge")
    assert len(verdict({**GOOD, "test_mae_of_composition": 0.3}, [])) == 1


def test_a_run_that_loses_to_the_mean_is_warned_of():
    first, warning = verdict({**GOOD, "test_mae": 2.5}, [])
    assert "2.50 times 1.00 eV" in first
    assert warning.startswith("It is no better than the mean of its 1,200 training crystals")


def test_what_was_seen_before_is_told_by_structure_and_by_formula():
    seen = {"n": 94, "by_formula": 3, "by_structure": 2}
    assert verdict({**GOOD, "teacher_has_seen": seen}, [])[1] == (
        "What it learned from has seen 2 of the 94 test crystals, and 1 other of the same formula: "
        "its error on new crystals is larger. Keep them out of pre-training, or test on others."
    )
    (_, warning) = verdict({**GOOD, "teacher_has_seen": {**seen, "by_structure": None}}, [])
    assert "has seen 3 of the 94 test crystals, by formula: its error" in warning


def test_few_test_crystals_are_warned_of():
    assert "of 9 test crystals, which is too few" in verdict({**GOOD, "n_test": 9}, [])[1]
    assert "of 1 test crystal, which" in verdict({**GOOD, "n_test": 1}, [])[1]
    assert len(verdict({**GOOD, "n_test": 10}, [])) == 1


def test_a_last_epoch_that_is_the_best_is_warned_of_with_how_much_the_error_still_fell():
    last = {**GOOD, "best_epoch": 10}
    assert verdict(last, [])[1] == "The best epoch is the last one, 10. More epochs may help."
    lines = [{"epoch": 8, "validation_mae": 0.4}, {"epoch": 10, "validation_mae": 0.3}]
    assert "fell by 25 % over 2 epochs" in verdict(last, lines)[1]


def test_one_step_an_epoch_is_warned_of():
    assert "a single step" in verdict({**GOOD, "steps": 10}, [])[1]


def test_objectives_are_judged_by_the_best_constant_answer():
    result = {
        "task": "pretraining",
        "n_validation": 7564,
        "validation_loss": 1.2,
        "validation_masked_elements": 1.5,
        "validation_masked_elements_accuracy": 0.747,
        "validation_masked_elements_trivial": 3.0,
        "validation_hidden_scale": 0.4,
        "validation_hidden_scale_trivial": 0.3,
        "validation_connection": 0.6,
        "epochs": 15,
        "best_epoch": 14,
        "steps": 17917,
    }
    first, *warnings = verdict(result, [])
    assert first == (
        "Of 7,564 validation crystals, after 14 epochs: masked elements: loss 1.50, 50 % lower "
        "than that of the best constant answer, 3.00 (74.7 % right); hidden scale: loss 0.400, "
        "33 % higher than that of the best constant answer, 0.300; connection: loss 0.600."
    )
    assert len(warnings) == 1 and "nothing of hidden scale" in warnings[0]


def test_equal_errors_and_a_baseline_of_zero_can_be_told():
    assert against(1.0, 1.001) == "about the same as"
    assert against(1.0, 0.0) == "against"
