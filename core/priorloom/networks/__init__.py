"""Convolutional networks on images, real or complex, that know neither physics nor modality."""

from .convolution import ConvolutionBlock
from .images import ImageNetwork
from .spectral import Averaged, NonexpansiveBlock
from .unet import UNet

__all__ = ["Averaged", "ConvolutionBlock", "ImageNetwork", "NonexpansiveBlock", "UNet"]
