"""The official nuScenes splits as scene names, and those of SLidR.

Source: nuScenes (Caesar et al., CVPR 2020, arXiv:1903.11027); the scene lists that come with the
v1.0 release. 700 training, 150 validation and 150 test scenes. v1.0-mini has 8 + 2 of them, drawn
without regard to the large splits: its training scenes 0553 and 0796 are validation scenes there.
SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258) keeps 100 of the training scenes to choose
parameters with, pre-trains on the other 600 meanwhile, and fine-tunes on a share of all 700.
"""


def _scenes(ranges: str) -> tuple[str, ...]:
    """Expand `1-3 7` to scene-0001, scene-0002, scene-0003, scene-0007."""
    numbers: list[int] = []
    for item in ranges.split():
        first, _, last = item.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(f"scene-{number:04d}" for number in numbers)


TRAIN: tuple[str, ...] = _scenes("""
    1-2 4-11 19-34 41-76 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196 199-200
    202-204 206-214 218-220 222 224-264 283-306 315-318 321 323-324 328 347-386 388-403 405-408
    410-459 461-465 467-469 471-472 474-480 499-502 504-515 517-518 525-539 541-546 566 568
    570-578 580 582-600 639-679 681 683-689 695-698 700-701 703-719 726-728 730-731 733-741 744
    746-747 749-752 757-765 767-769 786-787 789-792 803-806 808-813 815-817 819-822 847-856 858
    860-866 868-873 875-878 880 882-903 945 947 949 952-953 955-961 975-984 988-992 994-1025
    1044-1058 1074-1102 1104-1110
""")
VAL: tuple[str, ...] = _scenes("""
    3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630
    632-638 770-771 775 777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972
    1059-1073
""")
TEST: tuple[str, ...] = _scenes("""
    77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624
    827-831 833-842 844-846 932-933 935-943 1026-1043
""")
MINI_TRAIN: tuple[str, ...] = _scenes("61 553 655 757 796 1077 1094 1100")
MINI_VAL: tuple[str, ...] = _scenes("103 916")
SLIDR_VAL: tuple[str, ...] = _scenes("""
    8-9 19 29 32 42 45 49 52 54 56 66-67 73 131 152 166 168 183 190 194 208 210-211 241 243 248
    259-261 287 292 297 305-306 350 352 358 361 365 368 377 388 391 395 413 427-428 438 444 452-453
    459 463-464 475 513 533 544 575 587 589 642 652 658 669 678 687 701 703 706 710 715 726 735 740
    758 786 790 804 806 847 856 868 882 897 899 976 996 1012 1015-1016 1018 1020 1024 1044 1058
    1094 1098 1107
""")
SLIDR_TRAIN: tuple[str, ...] = tuple(name for name in TRAIN if name not in SLIDR_VAL)
