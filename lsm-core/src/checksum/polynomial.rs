//! CRCs as arithmetic: the constants that everything is derived from, and the way by table.
//!
//! Polynomials over GF(2) are held reflected: bit `i` of a `u64` is the coefficient of x^(63 - i).

/// The generator of CRC-64/NVME without its x^64.
pub(super) const CRC64: u64 = 0x9a6c_9329_ac4b_c9b5;

/// The generator of CRC-32 (IEEE) times x^32, without its x^64.
#[cfg(any(test, target_arch = "x86_64"))]
pub(super) const CRC32: u64 = 0xedb8_8320;

/// Inputs from here on are faster with `crc-fast`.
pub(super) const BYTES_MAX: usize = 64;

/// `value` times x, modulo the generator.
pub(super) const fn times_x(generator: u64, value: u64) -> u64 {
    (value >> 1) ^ (if value & 1 == 1 { generator } else { 0 })
}

/// `TABLES[i][byte]` is the CRC of `byte` with `i` zero bytes after it.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut table = 0;
        while table < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = times_x(CRC64, crc);
                bit += 1;
            }
            tables[table][byte] = crc;
            table += 1;
        }
        byte += 1;
    }
    tables
}

/// Eight bytes at a time, on any machine.
pub(super) fn crc64(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = !seed;
    for word in words {
        let mixed = crc ^ u64::from_le_bytes(*word);
        crc = 0;
        for (table, byte) in TABLES.iter().rev().zip(mixed.to_le_bytes()) {
            crc ^= table[usize::from(byte)];
        }
    }
    for byte in rest {
        crc = (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    !crc
}
