"""What has to be equal for equal bytes."""

from __future__ import annotations

from prep.fingerprint import cpu_of, fingerprint

AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
microcode\t: 0x1000065
cpu MHz\t\t: 2596.144
flags\t\t: fpu sse2 fma movbe avx ibpb smep avx2 avx512f avx512_bf16

processor\t: 1
vendor_id\t: AuthenticAMD
model\t\t: 18
"""
ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm sve bf16
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""


def test_processors_are_told_apart() -> None:
    assert cpu_of(AMD) == "AuthenticAMD 25 17 avx avx2 avx512_bf16 avx512f fma"
    assert cpu_of(AMD.replace("2596.144", "3000").replace(" ibpb", "").replace("0x1000065", "0x2")) == cpu_of(AMD)
    amx = AMD.replace("avx512_bf16", "avx512_bf16 amx_bf16")
    intel = AMD.replace("AuthenticAMD", "GenuineIntel", 1)
    assert len({cpu_of(text) for text in (AMD, amx, intel, ARM)}) == 4
    assert cpu_of(ARM) == "0x41 0xd4f asimd bf16 sve"


def test_all_is_told() -> None:
    assert all(fingerprint().values()) and fingerprint() == fingerprint()
