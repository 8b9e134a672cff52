//! The numbers of the Security Association payload.

wire_number! {
    /// IANA "IKEv2 Security Protocol Identifiers". Zero, where no protocol is concerned.
    ProtocolId(u8) {
        NONE = 0,
        IKE = 1,
        AH = 2,
        ESP = 3,
        FC_ESP_HEADER = 4,
        FC_CT_AUTHENTICATION = 5,
        GIKE_UPDATE = 6,
    }
}

wire_number! {
    /// IANA "Transform Type Values"; additional key exchanges are RFC 9370.
    TransformType(u8) {
        ENCR = 1,
        PRF = 2,
        INTEG = 3,
        KE = 4,
        SN = 5,
        ADDKE1 = 6,
        ADDKE2 = 7,
        ADDKE3 = 8,
        ADDKE4 = 9,
        ADDKE5 = 10,
        ADDKE6 = 11,
        ADDKE7 = 12,
        KWA = 13,
        GCAUTH = 14,
    }
}

wire_number! {
    /// IANA "IKEv2 Transform Attribute Types".
    AttributeType(u16) {
        KEY_LENGTH = 14,
        SIGNATURE_ALGORITHM_IDENTIFIER = 18,
    }
}

/// Which algorithm, within a [`TransformType`]. The constants carry the type as a prefix:
/// `ENCR_`, `PRF_`, `AUTH_` (integrity), `KE_` (key exchange, also in the KE payload), `SN_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransformId(pub u16);

macro_rules! transform_ids {
    ($( $ty:ident { $( $konst:ident = $value:literal, )* } )*) => {
        impl TransformId {
            $($(
                #[doc = concat!("`", stringify!($konst), "` is ", stringify!($value), ".")]
                pub const $konst: Self = Self($value);
            )*)*

            /// The registry's name of this number within `ty`, if this crate knows it.
            pub fn name(self, ty: TransformType) -> Option<&'static str> {
                // RFC 9370 §2.2.1: additional key exchanges share the registry of type 4.
                let ty = if ty.is_additional_ke() { TransformType::KE } else { ty };
                match ty {
                    $( TransformType::$ty => match self.0 {
                        $( $value => Some(stringify!($konst)), )*
                        _ => None,
                    }, )*
                    _ => None,
                }
            }
        }
    };
}

transform_ids! {
    ENCR {
        ENCR_DES_IV64 = 1,
        ENCR_DES = 2,
        ENCR_3DES = 3,
        ENCR_RC5 = 4,
        ENCR_IDEA = 5,
        ENCR_CAST = 6,
        ENCR_BLOWFISH = 7,
        ENCR_3IDEA = 8,
        ENCR_DES_IV32 = 9,
        ENCR_NULL = 11,
        ENCR_AES_CBC = 12,
        ENCR_AES_CTR = 13,
        ENCR_AES_CCM_8 = 14,
        ENCR_AES_CCM_12 = 15,
        ENCR_AES_CCM_16 = 16,
        ENCR_AES_GCM_8 = 18,
        ENCR_AES_GCM_12 = 19,
        ENCR_AES_GCM_16 = 20,
        ENCR_NULL_AUTH_AES_GMAC = 21,
        ENCR_CAMELLIA_CBC = 23,
        ENCR_CAMELLIA_CTR = 24,
        ENCR_CAMELLIA_CCM_8 = 25,
        ENCR_CAMELLIA_CCM_12 = 26,
        ENCR_CAMELLIA_CCM_16 = 27,
        ENCR_CHACHA20_POLY1305 = 28,
        ENCR_AES_CCM_8_IIV = 29,
        ENCR_AES_GCM_16_IIV = 30,
        ENCR_CHACHA20_POLY1305_IIV = 31,
    }
    PRF {
        PRF_HMAC_MD5 = 1,
        PRF_HMAC_SHA1 = 2,
        PRF_HMAC_TIGER = 3,
        PRF_AES128_XCBC = 4,
        PRF_HMAC_SHA2_256 = 5,
        PRF_HMAC_SHA2_384 = 6,
        PRF_HMAC_SHA2_512 = 7,
        PRF_AES128_CMAC = 8,
    }
    INTEG {
        AUTH_NONE = 0,
        AUTH_HMAC_MD5_96 = 1,
        AUTH_HMAC_SHA1_96 = 2,
        AUTH_DES_MAC = 3,
        AUTH_KPDK_MD5 = 4,
        AUTH_AES_XCBC_96 = 5,
        AUTH_HMAC_MD5_128 = 6,
        AUTH_HMAC_SHA1_160 = 7,
        AUTH_AES_CMAC_96 = 8,
        AUTH_AES_128_GMAC = 9,
        AUTH_AES_192_GMAC = 10,
        AUTH_AES_256_GMAC = 11,
        AUTH_HMAC_SHA2_256_128 = 12,
        AUTH_HMAC_SHA2_384_192 = 13,
        AUTH_HMAC_SHA2_512_256 = 14,
    }
    KE {
        KE_NONE = 0,
        KE_MODP_768 = 1,
        KE_MODP_1024 = 2,
        KE_MODP_1536 = 5,
        KE_MODP_2048 = 14,
        KE_MODP_3072 = 15,
        KE_MODP_4096 = 16,
        KE_MODP_6144 = 17,
        KE_MODP_8192 = 18,
        KE_ECP_256 = 19,
        KE_ECP_384 = 20,
        KE_ECP_521 = 21,
        KE_MODP_1024_160 = 22,
        KE_MODP_2048_224 = 23,
        KE_MODP_2048_256 = 24,
        KE_ECP_192 = 25,
        KE_ECP_224 = 26,
        KE_BRAINPOOL_P224R1 = 27,
        KE_BRAINPOOL_P256R1 = 28,
        KE_BRAINPOOL_P384R1 = 29,
        KE_BRAINPOOL_P512R1 = 30,
        KE_CURVE25519 = 31,
        KE_CURVE448 = 32,
        KE_ML_KEM_512 = 35,
        KE_ML_KEM_768 = 36,
        KE_ML_KEM_1024 = 37,
    }
    SN {
        SN_32_BIT = 0,
        SN_64_BIT = 1,
    }
}

impl TransformType {
    /// The additional key exchanges of RFC 9370, in the order they are performed.
    pub const ADDITIONAL_KE: [Self; 7] = [
        Self::ADDKE1,
        Self::ADDKE2,
        Self::ADDKE3,
        Self::ADDKE4,
        Self::ADDKE5,
        Self::ADDKE6,
        Self::ADDKE7,
    ];

    /// Whether this is one of the additional key exchanges of RFC 9370.
    pub fn is_additional_ke(self) -> bool {
        (Self::ADDKE1..=Self::ADDKE7).contains(&self)
    }
}
