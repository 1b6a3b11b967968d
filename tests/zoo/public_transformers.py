"""Small configurations of transformers' networks: model class, configuration class, its options, and the inputs."""

import torch


def _ids():
    return {"input_ids": torch.randint(5, 20, (2, 6))}


def _pairs():
    return _ids() | {"decoder_input_ids": torch.randint(5, 20, (2, 4))}


def _image():
    return {"pixel_values": torch.randn(1, 3, 16, 16)}


def _both():
    return _ids() | {"pixel_values": torch.randn(2, 3, 16, 16)}


_VOCAB = {"vocab_size": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT = _VOCAB | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
                  "max_position_embeddings": 16}  # fmt: skip
_LLAMA = _BERT | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
_T5 = _VOCAB | {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
_BART = _VOCAB | {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
                  "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
                      "max_position_embeddings": 32,
                  "decoder_start_token_id": 1}  # fmt: skip
_VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 16,
           "patch_size": 8, "num_labels": 4}  # fmt: skip
_MOE = _LLAMA | {"num_experts_per_tok": 2, "moe_intermediate_size": 12, "output_router_logits": False}

MODELS = {
    "bert": ("BertForSequenceClassification", "BertConfig", _BERT, _ids),
    "bert_masked": ("BertForMaskedLM", "BertConfig", _BERT, _ids),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", _BERT | {"max_position_embeddings": 20}, _ids),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig",
                   _VOCAB | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
                       "max_position_embeddings": 16}, _ids),
    "albert": ("AlbertForSequenceClassification", "AlbertConfig", _BERT | {"embedding_size": 8}, _ids),
    "electra": ("ElectraForSequenceClassification", "ElectraConfig", _BERT | {"embedding_size": 8}, _ids),
    "deberta_v2": ("DebertaV2ForSequenceClassification", "DebertaV2Config",
                   _BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, _ids),
    "mpnet": ("MPNetForSequenceClassification", "MPNetConfig", _BERT | {"max_position_embeddings": 20}, _ids),
    "convbert": ("ConvBertForSequenceClassification", "ConvBertConfig", _BERT | {"embedding_size": 16}, _ids),
    "squeezebert": ("SqueezeBertForSequenceClassification", "SqueezeBertConfig", _BERT | {
        "embedding_size": 16, "q_groups": 1, "k_groups": 1, "v_groups": 1, "post_attention_groups": 1,
        "intermediate_groups": 2, "output_groups": 2}, _ids),
    "fnet": ("FNetForSequenceClassification", "FNetConfig", _BERT, _ids),
    "roformer": ("RoFormerForSequenceClassification", "RoFormerConfig", _BERT | {"embedding_size": 16}, _ids),
    "modernbert": ("ModernBertForSequenceClassification", "ModernBertConfig",
                   _BERT | {"global_attn_every_n_layers": 2, "local_attention": 4, "cls_token_id": 1,
                       "sep_token_id": 2}, _ids),
    "xlnet": ("XLNetForSequenceClassification", "XLNetConfig",
              _VOCAB | {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}, _ids),
    "longformer": ("LongformerForSequenceClassification", "LongformerConfig",
                   _BERT | {"attention_window": 4, "max_position_embeddings": 24}, _ids),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _VOCAB | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16},
        _ids),
    "gpt2_classifier": ("GPT2ForSequenceClassification", "GPT2Config",
                        _VOCAB | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}, _ids),
    "gpt_neo": ("GPTNeoForCausalLM", "GPTNeoConfig", _VOCAB | {
        "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 16, "window_size": 4}, _ids),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _BERT, _ids),
    "gptj": ("GPTJForCausalLM", "GPTJConfig",
             _VOCAB | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "rotary_dim": 4}, _ids),
    "opt": ("OPTForCausalLM", "OPTConfig", _VOCAB | {"hidden_size": 16, "word_embed_proj_dim": 16,
        "num_hidden_layers": 2,
            "num_attention_heads": 2, "ffn_dim": 24, "max_position_embeddings": 16}, _ids),
    "bloom": ("BloomForCausalLM", "BloomConfig", _VOCAB | {"hidden_size": 16, "n_layer": 2, "n_head": 2}, _ids),
    "falcon": ("FalconForCausalLM", "FalconConfig",
               _VOCAB | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}, _ids),
    "mpt": ("MptForCausalLM", "MptConfig", _VOCAB | {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 16},
        _ids),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _LLAMA, _ids),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", _LLAMA | {"tie_word_embeddings": True}, _ids),
    "mistral": ("MistralForCausalLM", "MistralConfig", _LLAMA | {"sliding_window": 4}, _ids),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _LLAMA, _ids),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _LLAMA | {"head_dim": 4}, _ids),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _LLAMA | {"head_dim": 4, "tie_word_embeddings": False}, _ids),
    "phi": ("PhiForCausalLM", "PhiConfig", _LLAMA | {"num_key_value_heads": 4}, _ids),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _LLAMA, _ids),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", _LLAMA, _ids),
    "cohere": ("CohereForCausalLM", "CohereConfig", _LLAMA | {"tie_word_embeddings": False}, _ids),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", _LLAMA, _ids),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", _LLAMA, _ids),
    "granite": ("GraniteForCausalLM", "GraniteConfig", _LLAMA, _ids),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _LLAMA | {"num_local_experts": 3, "num_experts_per_tok": 2},
        _ids),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _MOE | {"num_experts": 3, "head_dim": 4}, _ids),
    "mamba": ("MambaForCausalLM", "MambaConfig", _VOCAB | {"hidden_size": 12, "state_size": 4,
        "num_hidden_layers": 1}, _ids),
    "rwkv": ("RwkvForCausalLM", "RwkvConfig", _VOCAB | {"hidden_size": 12, "num_hidden_layers": 2,
        "context_length": 16}, _ids),
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5, _pairs),
    "t5_gated": ("T5ForConditionalGeneration", "T5Config",
                 _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, _pairs),
    "bart": ("BartForConditionalGeneration", "BartConfig", _BART, _pairs),
    "marian": ("MarianMTModel", "MarianConfig", _BART, _pairs),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", _BART, _pairs),
    "vit": ("ViTForImageClassification", "ViTConfig", _VISION, _image),
    "deit": ("DeiTForImageClassification", "DeiTConfig", _VISION, _image),
    "beit": ("BeitForImageClassification", "BeitConfig", _VISION, _image),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", _VISION, _image),
    "yolos": ("YolosForObjectDetection", "YolosConfig", _VISION | {
        "image_size": [16, 16], "num_detection_tokens": 3}, _image),
    "segformer": ("SegformerForImageClassification", "SegformerConfig", {
        "hidden_sizes": [8, 16], "depths": [1, 1], "num_encoder_blocks": 2, "num_attention_heads": [1, 2],
        "sr_ratios": [2, 1], "strides": [4, 2], "patch_sizes": [7, 3], "mlp_ratios": [2, 2], "num_labels": 4,
        "decoder_hidden_size": 8}, _image),
    "swin": ("SwinForImageClassification", "SwinConfig", {
        "image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4,
        "num_labels": 4}, _image),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", {
        "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "num_labels": 4}, _image),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", {
        "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 4, "layer_type": "basic"},
            _image),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "MobileNetV2Config", {
        "depth_multiplier": 0.1, "image_size": 32, "num_labels": 4}, lambda: {"pixel_values": torch.randn(1, 3, 32,
            32)}),
    "poolformer": ("PoolFormerForImageClassification", "PoolFormerConfig", {
        "hidden_sizes": [8, 12], "depths": [1, 1], "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2],
        "padding": [2, 1], "num_labels": 4}, _image),
    "clip": ("CLIPModel", "CLIPConfig", {
        "text_config": _BERT | {"projection_dim": 12}, "vision_config": _VISION | {"projection_dim": 12},
        "projection_dim": 12}, _both),
    "siglip": ("SiglipModel", "SiglipConfig", {"text_config": _BERT, "vision_config": _VISION}, _both),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", _BART | {
        "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16},
        lambda: {"input_features": torch.randn(1, 8, 16), "decoder_input_ids": torch.randint(5, 20, (1, 4))}),
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", _BERT | {
        "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0},
        lambda: {"input_values": torch.randn(1, 200)}),
    "audio_transformer": ("ASTForAudioClassification", "ASTConfig", _VISION | {
        "num_mel_bins": 16, "max_length": 24, "frequency_stride": 8, "time_stride": 8},
        lambda: {"input_values": torch.randn(1, 24, 16)}),
    "patchtst": ("PatchTSTForPrediction", "PatchTSTConfig", {
        "num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "num_hidden_layers": 1,
        "d_model": 8, "num_attention_heads": 2, "ffn_dim": 12, "prediction_length": 3},
        lambda: {"past_values": torch.randn(2, 16, 2)}),
    "decision_transformer": ("DecisionTransformerModel", "DecisionTransformerConfig", {
        "state_dim": 3, "act_dim": 2, "hidden_size": 8, "n_layer": 1, "n_head": 2, "max_ep_len": 10}, lambda: {
        "states": torch.randn(1, 4, 3), "actions": torch.randn(1, 4, 2), "returns_to_go": torch.randn(1, 4, 1),
        "timesteps": torch.arange(4)[None], "attention_mask": torch.ones(1, 4)}),
    "perceiver": ("PerceiverForSequenceClassification", "PerceiverConfig", {
        "num_latents": 4, "d_latents": 8, "d_model": 8, "num_blocks": 1, "num_self_attends_per_block": 1,
            "vocab_size": 24,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "max_position_embeddings": 16, "num_labels": 3},
        lambda: {"inputs": torch.randint(5, 20, (2, 6))}),
}  # fmt: skip
