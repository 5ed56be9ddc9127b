//! Element types with their ONNX numbers (onnx.proto, `TensorProto.DataType`).

use std::fmt;

macro_rules! dtypes {
    ($($v:ident = $n:literal, $name:literal, $bits:literal;)*) => {
        /// Element type of a tensor; discriminants are the ONNX numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum DType { $($v = $n),* }
        impl DType {
            pub const ALL: &'static [DType] = &[$(DType::$v),*];
            pub fn from_onnx(n: i32) -> Option<DType> { match n { $($n => Some(DType::$v),)* _ => None } }
            pub fn onnx(self) -> i32 { self as i32 }
            /// ONNX's lower-case name, as in the text syntax.
            pub fn name(self) -> &'static str { match self { $(DType::$v => $name),* } }
            pub fn from_name(s: &str) -> Option<DType> { match s { $($name => Some(DType::$v),)* _ => None } }
            /// Bits of one element as stored; 0 for strings.
            pub fn bits(self) -> usize { match self { $(DType::$v => $bits),* } }
        }
    };
}

dtypes! {
    F32 = 1, "float", 32;
    U8 = 2, "uint8", 8;
    I8 = 3, "int8", 8;
    U16 = 4, "uint16", 16;
    I16 = 5, "int16", 16;
    I32 = 6, "int32", 32;
    I64 = 7, "int64", 64;
    String = 8, "string", 0;
    Bool = 9, "bool", 8;
    F16 = 10, "float16", 16;
    F64 = 11, "double", 64;
    U32 = 12, "uint32", 32;
    U64 = 13, "uint64", 64;
    C64 = 14, "complex64", 64;
    C128 = 15, "complex128", 128;
    BF16 = 16, "bfloat16", 16;
    F8E4M3FN = 17, "float8e4m3fn", 8;
    F8E4M3FNUZ = 18, "float8e4m3fnuz", 8;
    F8E5M2 = 19, "float8e5m2", 8;
    F8E5M2FNUZ = 20, "float8e5m2fnuz", 8;
    U4 = 21, "uint4", 4;
    I4 = 22, "int4", 4;
    F4E2M1 = 23, "float4e2m1", 4;
    F8E8M0 = 24, "float8e8m0", 8;
    U2 = 25, "uint2", 2;
    I2 = 26, "int2", 2;
}

impl DType {
    /// Bytes that `n` elements take in storage; sub-byte types are packed, low bits first.
    pub fn storage_bytes(self, n: usize) -> usize {
        match self.bits() {
            0 => n.saturating_mul(24),
            b if b < 8 => n.div_ceil(8 / b),
            b => n.saturating_mul(b / 8),
        }
    }
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F32 | F64 | F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0)
    }
    pub fn is_signed_int(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::I4 | DType::I2)
    }
    pub fn is_unsigned_int(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::U4 | DType::U2)
    }
    pub fn is_int(self) -> bool {
        self.is_signed_int() || self.is_unsigned_int()
    }
    /// Smallest and largest value of an integer type.
    pub fn int_range(self) -> Option<(i128, i128)> {
        let b = self.bits() as u32;
        if self.is_signed_int() {
            Some((-(1i128 << (b - 1)), (1i128 << (b - 1)) - 1))
        } else if self.is_unsigned_int() {
            Some((0, (1i128 << b) - 1))
        } else {
            None
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
