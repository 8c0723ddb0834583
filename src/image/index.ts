// Images: decode, resize, and the values that the vision tower takes.

export { decodeImage, imageSize, MAX_PIXELS, type Pixels } from './decode.js';
export { pixelShape, pixelValues, resizeImage, type PixelValues } from './pixel-values.js';
export { imageSettings, type ImageSettings } from './settings.js';
