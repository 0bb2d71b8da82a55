"""The published model in Keras: run by ``published_speed.py`` with the Python of an environment that has tensorflow.

    python keras_model.py IMAGES.npy EPOCHS

Prints one line of JSON: loss, CPU seconds and wall seconds of each epoch.
"""

import json
import os
import sys
import time

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

LATENT, KL_WEIGHT = 20, 0.5e-4


def encoder():
    x = images = keras.Input((32, 32, 1))
    for channels in (16, 32, 64):
        x = layers.Conv2D(channels, 4, strides=2, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.BatchNormalization()(layers.Dense(256, activation="relu")(x))
    return keras.Model(images, [layers.Dense(LATENT)(x), layers.Dense(LATENT)(x)])


def decoder():
    z = keras.Input((LATENT,))
    x = layers.Reshape((4, 4, 64))(layers.Dense(1024, activation="relu")(z))
    x = layers.BatchNormalization()(x)
    for channels in (64, 32, 16):
        x = layers.Conv2DTranspose(channels, 4, strides=2, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(x)
    return keras.Model(z, layers.Conv2D(1, 4, padding="same", activation="sigmoid")(x))


class VAE(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = encoder(), decoder()
        self.mean_loss = keras.metrics.Mean()

    def train_step(self, x):
        with tf.GradientTape() as tape:
            mean, log_var = self.encoder(x, training=True)
            z = mean + tf.exp(log_var) * tf.random.normal(tf.shape(mean))
            reconstruction = tf.reduce_mean(keras.losses.binary_crossentropy(x, self.decoder(z, training=True)))
            divergence = tf.reduce_mean(1 + log_var - tf.square(mean) - tf.exp(log_var))
            loss = reconstruction - KL_WEIGHT * divergence
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.mean_loss.update_state(loss)
        return {"loss": self.mean_loss.result()}

    @property
    def metrics(self):
        return [self.mean_loss]


class Clock(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.cpu, self.wall = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.process_time(), time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.cpu.append(time.process_time() - self.started[0])
        self.wall.append(time.perf_counter() - self.started[1])


def main():
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    images = np.load(sys.argv[1])[..., None]
    model, clock = VAE(), Clock()
    model.compile(optimizer=keras.optimizers.Adam(5e-4), jit_compile=False)
    history = model.fit(images, batch_size=64, epochs=int(sys.argv[2]), verbose=0, callbacks=[clock])
    print(
        json.dumps(
            {
                "loss": history.history["loss"],
                "cpu_s": clock.cpu,
                "wall_s": clock.wall,
                "version": f"tensorflow {tf.__version__}, keras {keras.__version__}",
                "n_parameters": model.encoder.count_params() + model.decoder.count_params(),
            }
        )
    )


if __name__ == "__main__":
    main()
