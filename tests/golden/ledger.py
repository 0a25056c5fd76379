"""What becomes of every golden array: which test reads it, and what it is held to.

``test_vectors.py`` keeps this page true: an array that stands in no row fails it, as does a row
whose test does not read its arrays. Tolerances are absolute, on the scale of the arrays; the
README of the vectors allows 2e-5 for operators, 5e-5 for samplers (3e-4 for blur_celeba's) and
1e-4 where an estimate of noise amplifies rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOT_ARRAYS = {
    "README.md",
    "convnext_small_rgb32.pt",  # test_restorers, tests/cli/test_import_reference.py
}


@dataclass(frozen=True, slots=True)
class Row:
    """Arrays of one file (patterns with ``*``), the test that reads them, what it asserts."""

    arrays: str
    test: str
    held_to: str


def _rows(module: str, *rows: tuple[str, str, str]) -> tuple[Row, ...]:
    return tuple(Row(arrays, f"{module}::{test}", held_to) for arrays, test, held_to in rows)


def _operators(*rows: tuple[str, str, str]) -> tuple[Row, ...]:
    return _rows("test_degradations", *rows)


def _samplers(*rows: tuple[str, str, str]) -> tuple[Row, ...]:
    return _rows("test_samplers", *rows)


INPUT = "input"
SEVERITIES = "input: the severities of the arrays beside it"
DRAWN = "input: what the code drew"

BLUR_SAMPLER = (
    ("*_xT", "test_blur", "2e-5"),
    ("*_direct *_final *_xs *_x0hat", "test_blur", "5e-5 (blur_celeba: 3e-4)"),
    ("*_calls", "test_blur", "equal"),
    ("*_xs_state_levels", "test_blur", SEVERITIES),
)

INPAINT = _operators(
    ("x0", "test_inpaint", INPUT),
    ("levels", "test_inpaint", SEVERITIES),
    ("rand_row rand_col", "test_inpaint", DRAWN),
    ("mask_centre_*", "test_inpaint", "equal"),
    ("sigma_first_last", "test_inpaint", "1e-6 relative"),
    ("D_continuous cum_mask", "test_inpaint", "2e-5"),
    (
        "D_quantised",
        "test_inpaint",
        "differs: ours is D_continuous to the nearest level, theirs toward zero, both exactly",
    ),
) + _samplers(
    ("sampler_rand_*", "test_inpaint", DRAWN),
    (
        "*_xT",
        "test_inpaint",
        "differs: ours, to nearest, is above theirs by less than one level; input of the rest",
    ),
    ("*_direct *_final *_xs *_metric_*", "test_inpaint", "5e-5"),
    ("*_xs_after_level", "test_inpaint", SEVERITIES),
    ("*_calls_first_last_n", "test_inpaint", "equal"),
)

ONE_LEVEL_LOW = "test_snow_and_decolor_differ_from_the_code_by_its_one_level"
SAMPLED_ONE_LEVEL_LOW = _samplers(
    ("alg*_xT", ONE_LEVEL_LOW, "2e-5"),
    ("alg*_direct", ONE_LEVEL_LOW, "5e-5"),
    ("alg*_calls*", ONE_LEVEL_LOW, "equal: R is asked at the same severities"),
    ("alg*_xs_after_call", ONE_LEVEL_LOW, SEVERITIES),
    (
        "alg*_xs alg*_final alg*_metric_*",
        ONE_LEVEL_LOW,
        "differs: 5e-5 with our D asked one severity low; with a perfect R Algorithm 2 then ends "
        "at x0 + D(x0, T) - D(x0, T - 1), ours at x0",
    ),
)

LEDGER: Mapping[str, tuple[Row, ...]] = {
    "blur_mnist_constant_k11_s7": _operators(
        ("x0 t_idx_mixed", "test_blur", INPUT),
        ("levels", "test_blur", SEVERITIES),
        ("D D_mixed", "test_blur", "2e-5"),
        ("kernel1d", "test_blur", "1e-7"),
    )
    + _samplers(*BLUR_SAMPLER),
    "blur_cifar10_special6": _operators(
        ("x0 t_idx_mixed kernel1d_idx", "test_blur", INPUT),
        ("levels", "test_blur", SEVERITIES),
        ("D D_mixed", "test_blur", "2e-5"),
        ("kernel1d", "test_blur", "1e-7"),
    )
    + _samplers(*BLUR_SAMPLER),
    "blur_celeba_expreflect_k15": _operators(
        ("x0 kernel1d_idx", "test_blur", INPUT),
        ("levels", "test_blur", SEVERITIES),
        ("D", "test_blur", "2e-5"),
        ("kernel1d", "test_blur", "1e-7"),
    ),
    "blur_celeba_expreflect_k15_sampler32": _samplers(
        ("x0", "test_blur", INPUT),
        *BLUR_SAMPLER,
    ),
    "blur_generation_exp_k27_sampler32": _samplers(
        ("colours noise*_noise", "test_blur_generation_from_colours", DRAWN),
        ("noise*_xT", "test_blur_generation_from_colours", "2e-5"),
        ("noise*_direct noise*_final", "test_blur_generation_from_colours", "5e-5"),
        ("noise*_first_last_call", "test_blur_generation_from_colours", "equal"),
        ("cond_x0", "test_blur_generation_from_images", INPUT),
        ("cond_xT", "test_blur_generation_from_images", "2e-5"),
        ("cond_direct cond_final cond_alg1_final", "test_blur_generation_from_images", "5e-5"),
    ),
    "quantiser_discrete": _operators(
        (
            "k_in",
            "test_our_rounding_differs_from_the_codes_truncation_exactly_where_it_should",
            "equal: ours leaves 8-bit images as they are",
        ),
        (
            "int_out n_changed q x",
            "test_our_rounding_differs_from_the_codes_truncation_exactly_where_it_should",
            "differs: theirs lowers levels 1..63 by one, and is toward zero where ours is to "
            "nearest",
        ),
    ),
    "inpaint_cifar10_random_init11": INPAINT,
    "inpaint_mnist_random_init11": INPAINT,
    "inpaint_generation_small_T60_N32": _operators(
        ("x0 reverse_idx", "test_fade_to_colour", INPUT),
        ("colours", "test_fade_to_colour", DRAWN),
        ("D_levels", "test_fade_to_colour", SEVERITIES),
        ("reverse_D forward_D reverse_one_minus_alphas", "test_fade_to_colour", "2e-5"),
    )
    + _samplers(
        ("noise_added", "test_fade_to_colour", DRAWN),
        ("xs_levels", "test_fade_to_colour", SEVERITIES),
        ("alg2_direct alg2_final alg2_final_with_noise xs", "test_fade_to_colour", "5e-5"),
    ),
    "hot_noise_cosine_T200": _operators(
        ("x0", "test_noise", INPUT),
        ("z", "test_noise", DRAWN),
        ("levels", "test_noise", SEVERITIES),
        ("D", "test_noise", "2e-5"),
        ("alphas_cumprod_*", "test_noise", "1e-6"),
    )
    + _samplers(
        ("fixed_* estimated_final estimated_direct estimated_xs", "test_noise", "5e-5"),
        ("estimated_xs_levels", "test_noise", SEVERITIES),
        ("estimated_zhat", "test_noise", "1e-4, of the largest estimate where that is above 1"),
        (
            "default_noop_final",
            "test_the_codes_default_sampler_does_nothing_for_noise_and_ours_is_algorithm_1",
            "differs: theirs is z itself, ours Algorithm 1",
        ),
    ),
    "animorphosis_cosine_T200": _operators(
        ("x0 z_animal", "test_animorph", INPUT),
        ("levels", "test_animorph", SEVERITIES),
        ("D", "test_animorph", "2e-5"),
    )
    + _samplers(
        ("noise0.002", "test_animorph", DRAWN),
        ("gen_fixed_* sample_estimated_final", "test_animorph", "5e-5"),
    ),
    "sr_mnist_cifar_factor2_T3_N32": _operators(
        ("x0", "test_downsample", INPUT),
        ("levels", "test_downsample", SEVERITIES),
        ("D", "test_downsample", "2e-5"),
    )
    + _samplers(
        ("alg*_direct alg*_final alg*_xs alg*_metric_*", "test_downsample", "5e-5"),
        ("alg*_calls", "test_downsample", "equal"),
        ("alg*_xs_levels", "test_downsample", SEVERITIES),
    ),
    "snow_cifar10_level3_T200": _operators(
        ("x0", "test_snow", INPUT),
        ("levels", "test_snow", SEVERITIES),
        ("noise_raw_f64 orientation_u", "test_snow", f"{DRAWN}, once for the batch; we per image"),
        ("base_f64", "test_snow", "1e-14"),
        ("vertical", "test_snow", "equal"),
        ("*_first_last br_coef", "test_snow", "1e-6 relative"),
        ("D_* snow_layers", "test_snow", "2e-5"),
    )
    + SAMPLED_ONE_LEVEL_LOW,
    "snow_fixed_seed123321_levels1to4_T10_N32": _operators(
        ("x0", "test_snow_of_every_level", INPUT),
        ("level*_base level*_vertical", "test_snow_of_every_level", DRAWN),
        ("level*_D_*", "test_snow_of_every_level", "2e-5"),
    ),
    "decolor_linear_T20": _operators(
        ("x0", "test_decolor", INPUT),
        ("levels", "test_decolor", SEVERITIES),
        ("D constant*_D", "test_decolor", "2e-5"),
        (
            "step_ema_factors",
            "test_each_step_of_decolor_keeps_what_the_codes_step_keeps",
            "1e-6",
        ),
        (
            "lab_*",
            "test_the_codes_decolor_in_lab_is_ours_shown_in_lab",
            "2e-4 with L in 0..100: ours has no option for it",
        ),
    )
    + SAMPLED_ONE_LEVEL_LOW,
    "models_tiny": _rows(
        "test_restorers",
        ("x t_idx", "test_convnext_unet_gives_the_recorded_outputs", INPUT),
        (
            "unet8_*out",
            "test_convnext_unet_gives_the_recorded_outputs",
            "1e-5 of the largest output (16.5) in float64, 2e-5 of it in float32",
        ),
        ("x16", "test_ddpm_unet_gives_the_recorded_outputs", INPUT),
        (
            "ddpm32_out",
            "test_ddpm_unet_gives_the_recorded_outputs",
            "1e-5 of the largest output (1.09) in float64, 2e-5 of it in float32",
        ),
        (
            "*_param_names *_param_shapes",
            "test_parameters_have_the_names_shapes_and_order_of_the_papers_code",
            "equal",
        ),
        (
            "sinusoid_dim8_t0to4",
            "test_the_embedding_of_severity_one_is_the_recorded_index_zero",
            "1e-6",
        ),
    ),
    "convnext_small_rgb32_io": _rows(
        "test_restorers",
        ("x t", "test_a_checkpoint_of_the_papers_code_gives_its_recorded_output", INPUT),
        ("y", "test_a_checkpoint_of_the_papers_code_gives_its_recorded_output", "1e-5"),
    ),
    "preprocess_test_transform": _rows(
        "test_transforms",
        ("*_in", "test_the_test_transform", INPUT),
        ("*_u8", "test_the_test_transform", "equal"),
    ),
    "metrics": _rows(
        "test_metrics",
        ("a b", "test_ssim_of_each_image", INPUT),
        ("ssim_each", "test_ssim_of_each_image", "2e-6"),
        ("ssim_mean", "test_means_over_a_batch", "2e-6"),
        ("rmse", "test_means_over_a_batch", "1e-7"),
        ("ssim_gray_*", "test_grey_scores_as_three_equal_channels", "equal to each other"),
        ("mean_of_per_image_rmse", "test_rmse_is_the_global_one", "differs: ours is the global"),
        ("feat_*", "test_frechet_distance", INPUT),
        ("frechet_f64", "test_frechet_distance", "1e-10 relative"),
    ),
}
