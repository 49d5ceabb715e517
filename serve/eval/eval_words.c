/* SPDX-License-Identifier: Apache-2.0 */
/* quarry eval: the names and words that tasks are made of. */
#include "serve/eval/eval.h"

static const char *const names[QYI_EVAL_NAMES] = {
    "Agnes",   "Albert", "Alma",    "Anton",  "Arthur",  "Beatrix", "Bernard", "Bruno",
    "Carla",   "Casper", "Clara",   "Conrad", "Cora",    "Dagmar",  "Dexter",  "Dora",
    "Edgar",   "Edith",  "Elmer",   "Emil",   "Fergus",  "Fiona",   "Floyd",   "Freda",
    "Gaston",  "Gerda",  "Gilbert", "Greta",  "Hector",  "Heidi",   "Hilda",   "Homer",
    "Ingrid",  "Irma",   "Ivan",    "Jasper", "Jonas",   "Judith",  "Kirsten", "Lambert",
    "Leona",   "Lionel", "Lorenz",  "Lydia",  "Magnus",  "Marcel",  "Mona",    "Nadia",
    "Norbert", "Olga",   "Oscar",   "Otto",   "Paula",   "Quentin", "Ramona",  "Rupert",
    "Sabine",  "Sigrid", "Thelma",  "Ursula", "Valerie", "Victor",  "Wanda",   "Yvonne",
};

static const char *const words[QYI_EVAL_WORDS] = {
    "apple",   "anchor",  "arrow",  "autumn", "bacon",   "barrel",   "basket", "beach",   "bell",
    "bird",    "blanket", "boat",   "bone",   "book",    "bottle",   "branch", "bread",   "bridge",
    "brush",   "bucket",  "butter", "button", "cabin",   "cable",    "candle", "canvas",  "carpet",
    "castle",  "chain",   "chair",  "cheese", "cherry",  "circle",   "clock",  "cloud",   "coast",
    "coat",    "coffee",  "copper", "corn",   "cotton",  "cousin",   "crown",  "curtain", "desert",
    "desk",    "dinner",  "doctor", "door",   "dress",   "drum",     "eagle",  "engine",  "farmer",
    "feather", "fence",   "field",  "finger", "fire",    "fish",     "flag",   "flower",  "forest",
    "fox",     "garden",  "gate",   "glass",  "glove",   "gold",     "grape",  "guitar",  "hammer",
    "harbor",  "hat",     "hill",   "honey",  "horse",   "hotel",    "island", "jacket",  "jewel",
    "judge",   "kettle",  "key",    "king",   "kitchen", "knife",    "ladder", "lake",    "lamp",
    "leaf",    "lemon",   "letter", "lion",   "magnet",  "map",      "market", "meadow",  "medal",
    "milk",    "mirror",  "monkey", "moon",   "motor",   "mountain", "nail",   "needle",  "nurse",
    "ocean",   "onion",   "orange", "oven",   "owl",     "paint",    "paper",  "pencil",  "pepper",
    "piano",   "pillow",  "planet", "plate",  "pocket",  "potato",   "prince", "rabbit",  "rain",
    "ribbon",  "ring",    "river",  "rocket", "roof",    "rope",     "salt",   "school",  "shadow",
    "ship",    "silver",  "snow",   "spoon",  "station", "stone",    "sugar",  "table",   "tiger",
};

const char *qyi_eval_word(size_t i)
{
    return words[i % QYI_EVAL_WORDS];
}

enum qy_status qyi_eval_draw_facts(struct qyi_eval_random *random, struct qyi_eval_fact *facts,
                                   size_t n, struct qy_error *err)
{
    uint32_t order[QYI_EVAL_NAMES];
    if (n > QYI_EVAL_NAMES) {
        return qy_error_set(err, QY_ERR_CONFIG, "eval: %zu facts in one text; at most %d", n,
                            QYI_EVAL_NAMES);
    }
    for (uint32_t i = 0; i < QYI_EVAL_NAMES; i++) {
        order[i] = i;
    }
    qyi_eval_shuffle(random, order, QYI_EVAL_NAMES);
    for (size_t i = 0; i < n; i++) {
        facts[i].name = names[order[i]];
        facts[i].code = 10000 + (unsigned)qyi_eval_draw(random, 90000);
    }
    return QY_OK;
}
