//! placeholder: helper B writes it
