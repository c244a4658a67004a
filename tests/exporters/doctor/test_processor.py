"""Features are read from what the system says."""

from exporters.doctor import processor

SAPPHIRE_RAPIDS = "flags\t: fpu sse avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8 avx512_fp16"
CORTEX = "Features\t: fp asimd evtstrm crc32 asimdhp asimddp i8mm bf16"


def test_amx_and_bf16_are_found_on_a_server():
    features = processor.features_in(SAPPHIRE_RAPIDS)
    assert {"AMX bf16", "AMX int8", "AVX-512 bf16", "AVX-512 fp16", "AVX-512 VNNI (int8)"} <= set(features)
    assert "NEON" not in features


def test_a_flag_counts_as_a_whole_word_only():
    assert processor.features_in("avx512f_not avx2x") == ()


def test_half_precision_of_an_arm_core_is_found():
    assert processor.features_in(CORTEX) == (
        "NEON",
        "NEON fp16",
        "NEON dot product (int8)",
        "NEON int8 matrices",
        "NEON bf16",
    )


def test_without_nvidias_program_there_are_no_cards(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processor.graphics_cards() == ()


def test_cards_are_what_nvidias_program_says(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 580.95'\necho\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processor.graphics_cards() == ("NVIDIA L4, 23034 MiB, 580.95",)


def test_a_program_that_fails_means_no_cards(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processor.graphics_cards() == ()
