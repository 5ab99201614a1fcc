"""Convolutional networks on images, real or complex, that know neither physics nor modality."""

from .convolution import ConvolutionBlock
from .denoising import AveragedNetwork, DenoisingNetwork, DnCNN, DRUNet, GradientStep
from .images import ImageNetwork
from .ridge import RidgeDenoiser, RidgeNetwork
from .spectral import Averaged, NonexpansiveBlock
from .unet import UNet

__all__ = [
    "Averaged",
    "AveragedNetwork",
    "ConvolutionBlock",
    "DRUNet",
    "DenoisingNetwork",
    "DnCNN",
    "GradientStep",
    "ImageNetwork",
    "NonexpansiveBlock",
    "RidgeDenoiser",
    "RidgeNetwork",
    "UNet",
]
